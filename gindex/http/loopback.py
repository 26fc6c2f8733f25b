"""Names and addresses of this machine itself."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Say whether a name or address is this machine's own, which no other machine and no proxy can reach."""
    name = host.lower().rstrip(".").removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
