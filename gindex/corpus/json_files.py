"""Records of JSON files: an array of records, one record written over several lines, or one per line."""

import codecs
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from gindex.config import CorpusConfig
from gindex.corpus import text_files
from gindex.corpus.compression import decompressed
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
    with decompressed(source.open(), source.location) as stream:
        begin = stream.read(_PIECE).decode(errors="replace").lstrip(_BOM + _SPACE)
    if not begin.startswith("[") and _holds_lines(begin):
        yield from text_files.read_lines(source, config)
        return
    with decompressed(source.open(), source.location) as stream:
        text = _JsonParser(stream, source.location)
        for number, fields in enumerate(text.array() if begin.startswith("[") else text.values(), 1):
            place = f"{source.location}: record {number}"
            yield Record(fields=fields, place=place, default_id=f"{source.name}:{number}")


def _holds_lines(begin: str) -> bool:
    """Say whether the first line is a whole JSON value; a line longer than the piece that was read counts as one."""
    line, end, _ = begin.partition("\n")
    try:
        parse_json(line)
    except EqualKeysError:
        return True
    except (ValueError, RecursionError):
        return not end
    return True


class _JsonParser:
    """A parser of a JSON file that keeps no more than the text that is not parsed yet in memory."""

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
        """Yield the elements of an array."""
        self._take("[")
        if self._next() == "]":
            self._at += 1
        else:
            yield self._value()
            while self._take(",]") == ",":
                yield self._value()
        if character := self._next():
            raise self._malformed(f"{character!r} after the end of the array")

    def values(self) -> Iterator[object]:
        """Yield values that follow each other."""
        while self._next():
            yield self._value()

    def _take(self, signs: str) -> str:
        character = self._next()
        if not character or character not in signs:
            raise self._malformed(
                f"{character!r} in the place of {' or '.join(signs)}" if character else "its end too early"
            )
        self._at += 1
        return character

    def _next(self) -> str:
        """Return the next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._grow():
                return ""

    def _value(self) -> object:
        """Return the next value. Where it is not whole yet, it is parsed again once the text has doubled."""
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
                raise text_files.equal_keys(error, f"{self._location}: record {self._number}") from error
            except (ValueError, RecursionError) as error:
                raise self._malformed(text_files.one_line(error)) from error

    def _grow(self) -> bool:
        """Double the text that is not parsed yet, or add a piece; False at the end of the file."""
        left = self._text[self._at :]
        if len(left) > text_files.LONGEST_RECORD:
            raise CorpusError(
                field=self._location,
                expected=f"records of at most {text_files.LONGEST_RECORD:,} characters",
                found=f"a longer one, or malformed JSON in record {self._number}",
                remedy="divide it into documents, or correct it",
            )
        read = self._stream.read(max(_PIECE, len(left)))
        data = self._undecoded + read
        whole = len(data)
        if read:  # the last character may be cut in two; `decode` says where one is wrong
            with suppress(UnicodeDecodeError):
                whole = codecs.utf_8_decode(data, "strict", False)[1]
        self._text, self._at = left + text_files.decode(data[:whole], self._location, self._offset), 0
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
