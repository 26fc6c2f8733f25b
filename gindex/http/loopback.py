"""Which hosts are this machine itself."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Say whether a name or address is this machine's own, which nobody else can reach and no proxy leads to."""
    name = host.lower().rstrip(".").removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
