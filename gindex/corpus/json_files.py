"""Records of JSON files: an array of records, one record written over several lines, or one per line."""

import codecs
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from gindex.config import CorpusConfig
from gindex.corpus import files
from gindex.corpus.compression import open_content
from gindex.corpus.json_values import EqualKeysError, distinct, parse_json
from gindex.corpus.records import Record
from gindex.corpus.sources import Source
from gindex.errors import CorpusError

_PIECE = 1 << 16
_BOM = "\ufeff"
_SPACE = " \t\r\n"


def read_json(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield the records of a JSON file, whichever of its three forms it has; one is in memory at a time.

    Raises:
        CorpusError: It is malformed, or an object in it has the same key twice.
    """
    with open_content(source.location) as stream:
        begin = stream.read(_PIECE).decode(errors="replace").lstrip(_BOM + _SPACE)
    if not begin.startswith("[") and _holds_lines(begin):
        yield from files.read_lines(source, config)
        return
    with open_content(source.location) as stream:
        text = _Text(stream, source.location)
        for number, fields in enumerate(text.array() if begin.startswith("[") else text.values(), 1):
            place = f"{source.location}: record {number}"
            yield Record(fields=fields, place=place, default_id=f"{source.name}:{number}")


def _holds_lines(begin: str) -> bool:
    """Say whether the first line is a whole value; one that is longer than what was looked at counts as such."""
    line, end, _ = begin.partition("\n")
    try:
        parse_json(line)
    except EqualKeysError:
        return True
    except (ValueError, RecursionError):
        return not end
    return True


class _Text:
    """The text of a JSON file, of which only what has not been parsed is in memory."""

    def __init__(self, stream: BinaryIO, location: str) -> None:
        self._stream = stream
        self._location = location
        self._decoder = json.JSONDecoder(object_pairs_hook=distinct)
        self._text = ""
        self._at = 0
        self._offset = 0
        self._undecoded = b""
        self._number = 1

    def array(self) -> Iterator[object]:
        """Yield the elements of the array that the text is."""
        self._take("[")
        if self._next() == "]":
            self._at += 1
        else:
            yield self._value()
            while self._take(",]") == ",":
                yield self._value()
        if found := self._next():
            raise self._malformed(f"{found!r} after the end of the array")

    def values(self) -> Iterator[object]:
        """Yield values that stand one after the other."""
        while self._next():
            yield self._value()

    def _take(self, signs: str) -> str:
        found = self._next()
        if not found or found not in signs:
            raise self._malformed(f"{found!r} in the place of {' or '.join(signs)}" if found else "its end too early")
        self._at += 1
        return found

    def _next(self) -> str:
        """Return the next character that is no space, or nothing at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def _value(self) -> object:
        """Return the next value, whole; a longer text is parsed again only when it has doubled."""
        self._next()
        while True:
            try:
                value, self._at = self._decoder.raw_decode(self._text, self._at)
                self._number += 1
                return value
            except json.JSONDecodeError as error:
                if not self._grow():
                    raise self._malformed(error.msg) from error
            except EqualKeysError as error:
                raise files.equal_keys(error, f"{self._location}: record {self._number}") from error
            except (ValueError, RecursionError) as error:
                raise self._malformed(files.one_line(error)) from error

    def _grow(self) -> bool:
        """Read as much again as is left, or a piece; say whether there was anything."""
        left = self._text[self._at :]
        if len(left) > files.LONGEST:
            raise CorpusError(
                field=self._location,
                expected=f"records of at most {files.LONGEST:,} characters",
                found=f"a longer one, or malformed JSON in record {self._number}",
                remedy="divide it into documents, or correct it",
            )
        read = self._stream.read(max(_PIECE, len(left)))
        data = self._undecoded + read
        whole = len(data)
        if read:  # the last character may be cut in two; `decode` says where one is wrong
            with suppress(UnicodeDecodeError):
                whole = codecs.utf_8_decode(data, "strict", False)[1]
        self._text, self._at = left + files.decode(data[:whole], self._location, self._offset), 0
        self._offset += whole
        self._undecoded = data[whole:]
        return bool(read)

    def _malformed(self, found: str) -> CorpusError:
        return CorpusError(
            field=f"{self._location}: record {self._number}",
            expected="JSON objects",
            found=f"malformed JSON ({found})",
            remedy="correct the record",
        )
