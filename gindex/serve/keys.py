"""API keys with scopes, and the rate of requests of each."""

import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gindex.errors import AccessError, ConfigError, OverloadedError

SCOPES = ("read", "write")
LEAST_CHARACTERS = 16
_REMEMBERED = 10_000


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks: the name of a key, or an address where there are no keys."""

    name: str
    scopes: frozenset[str]


class Keys:
    """The keys of a service; only their digests are held."""

    def __init__(self, digests: dict[bytes, Caller]) -> None:
        """Use `read`."""
        self._digests = digests

    @classmethod
    def read(cls, path: Path) -> "Keys":
        """Read keys from a file: a name, scopes joined by commas and the key in each line; `#` starts a comment.

        Raises:
            ConfigError: The file cannot be read, has no key, or a line is not of that form.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                field=path, expected="a file of API keys", found=error, remedy="check `api_key_file`"
            ) from error
        digests: dict[bytes, Caller] = {}
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            scopes = frozenset(words[1].split(",")) if len(words) == 3 else frozenset()
            if len(words) != 3 or not scopes <= set(SCOPES) or len(words[2]) < LEAST_CHARACTERS:
                raise ConfigError(
                    field=f"{path}:{number}",
                    expected=(
                        f"a name, scopes (read, write or read,write) and a key of at least {LEAST_CHARACTERS} "
                        "characters"
                    ),
                    found=f"{len(words)} words",
                    remedy="correct the line",
                )
            digests[_digest(words[2])] = Caller(name=words[0], scopes=scopes)
        if not digests:
            raise ConfigError(field=path, expected="at least one API key", found="none", remedy="write: NAME read KEY")
        return cls(digests)

    def caller(self, key: str | None) -> Caller:
        """Return whose key it is. Takes the same time for every wrong key.

        Raises:
            AccessError: It is missing or unknown.
        """
        given, found = _digest(key or ""), None
        for digest, caller in self._digests.items():
            if hmac.compare_digest(digest, given):
                found = caller
        if key is None or found is None:
            what = "none" if key is None else "an unknown one"
            raise AccessError(expected="an API key", found=what, remedy="send Authorization: Bearer KEY")
        return found


def bearer(header: str | None) -> str | None:
    """Return the key in an Authorization header."""
    match = re.fullmatch(r"(?i:bearer) +(\S+)", header or "")
    return match[1] if match else None


class RateLimit:
    """A bucket of tokens for each caller: `rate` are added a second, up to twice as many lie in it."""

    def __init__(self, rate: float | None, now: Callable[[], float] = time.monotonic) -> None:
        """Set the rate; None sets no limit."""
        self._rate, self._now = rate, now
        self._room = max(1.0, 2 * (rate or 0.0))
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count a request.

        Raises:
            OverloadedError: The caller has none left.
        """
        if self._rate is None:
            return
        now = self._now()
        left, then = self._buckets.pop(caller, (self._room, now))
        left = min(self._room, left + (now - then) * self._rate)
        self._buckets[caller] = (left - (left >= 1), now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        if left < 1:
            raise OverloadedError(expected=f"at most {self._rate:g} requests a second", remedy="wait and try again")


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
