"""The content of compressed files as a stream of bytes; a file that is damaged or cut short is refused."""

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from gindex.corpus.packages import require
from gindex.errors import CorpusError

ENDINGS = (".gz", ".bz2", ".xz", ".zst")
"""How the names of compressed files end, in lower case."""

DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""Errors of reading a file that is damaged, cut short, or out of reach."""

# First bytes of compressed files, whatever their names. No text in UTF-8 begins so, and hardly any as bzip2 does.
_MAGIC = {b"\x1f\x8b": ".gz", b"\xfd7zXZ\0": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_BZIP2 = b"BZh", b"1AY&SY"
_PIECE = 1 << 20
# The largest dictionary of xz's presets takes 65 MB; a header may ask for 4 GB.
_XZ_MEMORY = 1 << 30


def without_ending(name: str) -> str:
    """Return the name of a file without the ending of its compression."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in ENDINGS else name


def decompressed(file: io.BufferedReader, location: str) -> BinaryIO:
    """Return the content of a file, decompressed where its name or its first bytes say that it is compressed.

    Args:
        file: The file; it is closed with its content, or by an error.
        location: Its path, as messages show it.

    Raises:
        CorpusError: The file is empty where its name says that it is compressed; while reading, if it is damaged or
            cut short, or if something else follows its compressed data.
        MissingDependencyError: It is compressed by zstd, and pyarrow is not installed.
    """
    try:
        form = _form(location, file)
        if form is None:
            return file
        return io.BufferedReader(_Content(_opened(form, file, location), file, location, form), _PIECE)
    except BaseException:
        file.close()
        raise


def _form(location: str, file: io.BufferedReader) -> str | None:
    head = file.peek(10)[:10]
    ending = os.path.splitext(location)[1].lower()
    if ending in ENDINGS:
        if not head:
            raise CorpusError(
                field=location, expected="compressed data", found="an empty file", remedy="fetch or write it again"
            )
        return ending
    if head.startswith(_BZIP2[0]) and head.endswith(_BZIP2[1]):
        return ".bz2"
    return next((form for magic, form in _MAGIC.items() if head.startswith(magic)), None)


def _opened(form: str, file: BinaryIO, location: str) -> "_Readable":
    if form == ".gz":
        return gzip.GzipFile(fileobj=file)
    if form == ".bz2":
        return _Streams(file, bz2.BZ2Decompressor)
    if form == ".xz":
        return _Streams(file, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
    arrow = require("pyarrow", location)
    opened: _Readable = arrow.CompressedInputStream(arrow.PythonFile(file, mode="r"), "zstd")
    return opened


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Streams:
    """The compressed streams of a bzip2 or xz file, one after the other.

    Readers of the standard library silently ignore a damaged stream after the first one. Here it is an error.
    """

    def __init__(self, file: BinaryIO, start: Callable[[], _Decompressor]) -> None:
        self._file = file
        self._start = start
        self._stream = start()
        self._ahead = b""

    def read(self, size: int) -> bytes:
        while not self._stream.eof or self._next_stream():
            given = b""
            if self._stream.needs_input:
                given, self._ahead = self._ahead or self._file.read(_PIECE), b""
                if not given:
                    raise EOFError("the end of the file within its compressed data")
            if data := self._stream.decompress(given, size):
                return data
        return b""

    def _next_stream(self) -> bool:
        """Start the stream after a finished one, past zeros between them; False at the end of the file."""
        ahead = self._stream.unused_data
        while not (ahead := ahead.lstrip(b"\0")):
            ahead = self._file.read(_PIECE)
            if not ahead:
                return False
        self._stream, self._ahead = self._start(), ahead
        return True


class _Content(io.RawIOBase):
    """The decompressed content of a file; damage is an error that names the byte."""

    def __init__(self, content: _Readable, file: BinaryIO, location: str, form: str) -> None:
        self._content = content
        self._file = file
        self._location = location
        self._form = form
        self._done = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        try:
            data = self._content.read(len(view))
        except DAMAGE as error:
            raise CorpusError(
                field=self._location,
                expected=f"a readable file of whole {self._form[1:]} data",
                found=f"it damaged past byte {self._done:,} of what it holds ({' '.join(str(error).split())[:200]})",
                remedy="fetch or write it again",
            ) from error
        view[: len(data)] = data
        self._done += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
