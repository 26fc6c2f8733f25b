"""By which names a service answers: a web site that has a name of its own point here must not be answered.

Source: DNS rebinding, https://en.wikipedia.org/wiki/DNS_rebinding.
"""

import re
from collections.abc import Sequence

from gindex.errors import ConfigError
from gindex.http.loopback import is_loopback
from gindex.serve.problems import RefusedError

MISDIRECTED = 421
_WILDCARDS = ("0.0.0.0", "::", "")


class Hosts:
    """The names that requests may have in `Host`."""

    def __init__(self, listens: str, allowed: Sequence[str] = ()) -> None:
        """Allow names.

        Args:
            listens: Address that the service listens on: a loopback one is asked by loopback names alone.
            allowed: Further names; where there are any, an open address is asked by them, by its own name, and by
                loopback names.

        Raises:
            ConfigError: One is no name of a host.
        """
        for name in allowed:
            if _name_in(name) != name.lower() or not name:
                raise ConfigError(field="allowed_host", expected="a name such as gindex.example.org", found=repr(name))
        self._names = None
        if is_loopback(listens) or allowed:
            own = () if listens in _WILDCARDS else (f"[{listens}]" if ":" in listens else listens,)
            self._names = {name.lower() for name in (*allowed, *own)}

    def check(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Hold a request to the names.

        Raises:
            RefusedError: It names another host (421), or none, or two.
        """
        if self._names is None:
            return
        found = [value.decode("latin-1") for name, value in headers if name == b"host"]
        name = _name_in(found[0]) if len(found) == 1 else None
        if name is None or not (name in self._names or is_loopback(name)):
            raise RefusedError(
                MISDIRECTED,
                expected="a Host that this service answers to",
                found="another",
                remedy="add it with `allowed_host`",
            )


def _name_in(host: str) -> str | None:
    """Return the name or address in a `Host` header, in lower case and without the port."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d*)?", host)
    return match[1].lower() if match else None
