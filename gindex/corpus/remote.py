"""Files in object stores and at web addresses, read through fsspec.

Addresses may hold secrets: a user and password, or a query with a signature. They are given to the store alone, and
never shown or recorded; nor is the message of a store's error, before they are taken out of it.
"""

import io
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, unquote

from gindex.corpus.folders import Listing, sort_names
from gindex.corpus.packages import require
from gindex.distribution import install_hint
from gindex.errors import CorpusError, GindexError, MissingDependencyError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WITHIN_TEXT = re.compile(_ADDRESS.pattern + r"[^\s'\"<>]*")
_HOST = re.compile(r"([^:]*|\[.*\])(:\d*)?")
_WEB = ("http", "https")
_INSTALLED = (*_WEB, "s3", "s3a")  # what the extra `remote` is enough for
_CONNECT_SECONDS, _READ_SECONDS = 20, 60
# What stores call the tag, checksum or time by which a change of a file is told, the surest first.
_VERSIONS = ("etag", "md5hash", "contentmd5", "versionid", "lastmodified", "updated", "mtime")
_PIECE = 1 << 20
# Shorter parts of an address would be taken out of words that have them by chance.
_SECRET_LENGTH = 4


def is_address(given: str) -> bool:
    """Say whether a source is given by an address such as s3://bucket/key, rather than by a path."""
    return _ADDRESS.match(given) is not None


def shown_address(address: str) -> str:
    """Return an address without what may be secret: user and password, query and fragment."""
    scheme, _, rest = address.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    if "@" not in host and "@" in rest and not _HOST.fullmatch(host):  # a password that is not percent-encoded
        return f"{scheme}://..."
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True, kw_only=True)
class RemotePath:
    """A file or folder in a store.

    Attributes:
        location: Its address as messages show it.
        address: Its address, secrets included.
        store: The file system of fsspec that it is in.
        path: What that calls it.
    """

    location: str
    address: str = field(repr=False)
    store: Any = field(repr=False)
    path: str = field(repr=False)

    @classmethod
    def at(cls, address: str) -> "RemotePath":
        """Return what is at an address; nothing is asked of the store yet.

        Raises:
            MissingDependencyError: A package is missing to reach the store.
            CorpusError: No store has such addresses.
        """
        location = shown_address(address)
        fsspec = require("fsspec", location)
        with _told(location, address):
            store, path = fsspec.core.url_to_fs(address, **_options(_scheme(address), fsspec.config.conf))
            store.invalidate_cache()  # stores are shared within the process, and remember listings
        return cls(location=location, address=address, store=store, path=path)

    def is_folder(self) -> bool:
        """Say whether it is a folder of a store that lists them; a web address is a file.

        Raises:
            CorpusError: Nothing is there, it cannot be reached, or it may not be read.
        """
        if self._is_of_the_web() and (len(self.parts) < 2 or self.location.endswith("/")):
            raise CorpusError(
                field=self.location,
                expected="the address of a file",
                found="that of a folder, which a web server does not list",
                remedy="give the address of each file",
            )
        return self._info().get("type") == "directory"

    def list_files(self) -> Listing:
        """List the files below a folder.

        Raises:
            CorpusError: It cannot be listed, holds no file, or is a Delta Lake table.
        """
        with _told(self.location, self.address):
            found = self.store.find(self.path)
        root = self.path.strip("/")
        names = [str(name).strip("/").removeprefix(root).lstrip("/") for name in found if not str(name).endswith("/")]
        if not names:
            raise CorpusError(
                field=self.location, expected="files", found="an empty listing", remedy="check the address"
            )
        return sort_names(sorted(names), self.location)

    def below(self, name: str) -> "RemotePath":
        """Return a file of the folder, by its name relative to it."""
        return RemotePath(
            location=f"{self.location.rstrip('/')}/{name}",
            address=self.address,
            store=self.store,
            path=f"{self.path.rstrip('/')}/{name}",
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of its folders and its own, from the bucket or host down."""
        return PurePosixPath(self.location.partition("://")[2]).parts

    def version(self) -> tuple[int | None, str | None]:
        """Return the size in bytes, and the tag, checksum or time by which a change is told; None where unknown.

        Raises:
            CorpusError: It cannot be reached.
        """
        info = self._info()
        known = {re.sub(r"[^a-z0-9]", "", name.lower()): value for name, value in info.items()}
        tag = next((f"{name} {known[name]}" for name in _VERSIONS if known.get(name)), None)
        return info.get("size"), tag

    def open(self, *, seekable: bool = False) -> io.BufferedReader:
        """Open the file to be read from its beginning.

        Args:
            seekable: Whether it will be read in any order: it is copied to an unnamed temporary file first.

        Raises:
            CorpusError: It cannot be reached or read, now or while it is read.
        """
        # Web servers need not give parts of a file: one request for all of it, as it is read.
        whole = {"block_size": 0} if self._is_of_the_web() else {}
        with _told(self.location, self.address):
            stream = self.store.open(self.path, "rb", **whole)
        file: io.BufferedReader = io.BufferedReader(_Content(stream, self), _PIECE)
        if not seekable:
            return file
        with file:
            copy = tempfile.TemporaryFile()  # noqa: SIM115 the caller closes it
            shutil.copyfileobj(file, copy, _PIECE)
        copy.seek(0)
        return io.BufferedReader(copy)

    def _is_of_the_web(self) -> bool:
        return _scheme(self.location) in _WEB

    def _info(self) -> Mapping[str, Any]:
        with _told(self.location, self.address):
            info: Mapping[str, Any] = self.store.info(self.path)
            return info


class _Content(io.RawIOBase):
    """The content of a file in a store; whatever error there is names the file and no secret."""

    def __init__(self, stream: Any, path: RemotePath) -> None:
        self._stream = stream
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        done = 0
        with _told(self._path.location, self._path.address):
            while done < len(view) and (data := self._stream.read(len(view) - done)):
                view[done : done + len(data)] = data
                done += len(data)
        return done

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _scheme(address: str) -> str:
    return address.partition("://")[0].lower()


def _options(scheme: str, configured: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a store is opened with: how long it may keep silent, where fsspec's own settings do not say."""
    name: str = ""
    limits: dict[str, Any] = {}
    if scheme in _WEB:
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
        name, limits = "client_kwargs", {"timeout": timeout}
    elif scheme in ("s3", "s3a"):
        name, limits = "config_kwargs", {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
    return {name: limits | configured.get(scheme, {}).get(name, {})} if name else {}


@contextmanager
def _told(location: str, address: str) -> Iterator[None]:
    """Raise errors of a store as those of gindex; the store's own, which may hold secrets, are not chained to them."""
    try:
        yield
    except GindexError:
        raise
    except ImportError as error:
        scheme = _scheme(address)
        raise MissingDependencyError(
            field=location,
            expected=f"what fsspec reads {scheme}:// with",
            found=f"it missing ({error})",
            remedy=install_hint("remote") if scheme in _INSTALLED else "install the package that it names",
        ) from error
    except Exception as error:  # every store has its own
        raise CorpusError(
            field=location,
            expected="a file or folder that can be read",
            found=_found(error, address),
            remedy="check the address, the network, and the credentials that the store takes from its settings",
        ) from None


def _found(error: Exception, address: str) -> str:
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception):  # of fsspec: no answer is no file
        return _found(cause, address)
    status = getattr(error, "status", None)  # of HTTP
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return "nothing there"
    if isinstance(error, PermissionError) or status in (401, 403):
        return "no permission to read it"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__} ({_scrubbed(str(error), address) or 'no message'})"


def _scrubbed(text: str, address: str) -> str:
    """Return a message on one line of at most 200 characters, without the secrets of an address."""
    text = _WITHIN_TEXT.sub(lambda found: shown_address(found[0]), text)
    for secret in _secrets(address):
        text = text.replace(secret, "...")
    return " ".join(text.split())[:200]


def _secrets(address: str) -> list[str]:
    """The parts of an address that may be secret, as they are written and as they are meant; the longest first."""
    rest = address.partition("://")[2]
    userinfo = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
    query = rest.partition("?")[2]
    written = [userinfo, *userinfo.split(":", 1), query, rest.partition("#")[2]]
    written += [value for _, value in parse_qsl(query)]
    forms = {form for part in written for form in (part, unquote(part)) if len(form) >= _SECRET_LENGTH}
    return sorted(forms, key=len, reverse=True)
