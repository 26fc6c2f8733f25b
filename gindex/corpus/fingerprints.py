"""Fingerprints of corpus files: a resumed build must find the files that it began with."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from gindex.corpus.folders import list_files
from gindex.corpus.source_fingerprint import SourceFingerprint
from gindex.corpus.sources import Source, SourceKind, expand
from gindex.errors import CorpusChangedError, CorpusError

_PIECE = 1 << 20
_REMEDY = "restore the file or give another `out`"


def fingerprint_sources(sources: Sequence[str]) -> list[SourceFingerprint]:
    """Return one fingerprint per file, in the order in which the files are read.

    A file in a store is not read where the store has a tag, a checksum or a time of change for it.

    Raises:
        CorpusError: A source is missing or cannot be read.
    """
    return [_fingerprint(path) for given in sources for source in expand(given) for path in _paths(source)]


def check_unchanged(recorded: Sequence[SourceFingerprint], current: Sequence[SourceFingerprint]) -> None:
    """Compare the fingerprints that an unfinished build recorded with those of its sources now.

    Raises:
        CorpusChangedError: A file was changed, removed, added or moved in the order; names the first one.
    """
    before, now = {item.path: item for item in recorded}, {item.path: item for item in current}
    for path, item in before.items():
        if path not in now:
            raise CorpusChangedError(
                field=path, expected="the file that the build began with", found="none", remedy=_REMEDY
            )
        if item != now[path]:
            raise CorpusChangedError(
                field=path,
                expected=f"{_content(item)}, as when the build began",
                found=_content(now[path]),
                remedy=_REMEDY,
            )
    for path in now:
        if path not in before:
            raise CorpusChangedError(
                field=path,
                expected="only the files that the build began with",
                found="this one added",
                remedy="remove the file or give another `out`",
            )
    _check_order([item.path for item in recorded], [item.path for item in current])


def _check_order(recorded: list[str], current: list[str]) -> None:
    for position, (before, now) in enumerate(zip(recorded, current, strict=False)):
        if before != now:
            raise CorpusChangedError(
                field=now,
                expected=f"{before} as source file {position + 1}, as when the build began",
                found="this one",
                remedy="give the sources in the first order or give another `out`",
            )
    if len(recorded) != len(current):
        raise CorpusChangedError(
            field="sources",
            expected=f"{len(recorded)} files, as when the build began",
            found=len(current),
            remedy="give each source as often as before or give another `out`",
        )


def _content(item: SourceFingerprint) -> str:
    content = f"sha256 {(item.sha256 or 'none')[:12]}" if item.version is None else item.version
    return f"{item.bytes} bytes with {content}"


def _paths(source: Source) -> Iterator[Source]:
    """Yield the files of a source, each as a source; a saved dataset has several."""
    if source.kind is not SourceKind.SAVED_DATASET:
        yield source
        return
    for relative in list_files(Path(source.location)).files:
        yield Source(kind=SourceKind.TEXT, location=str(Path(source.location, relative)), name=relative)


def _read(path: str, stream: BinaryIO) -> SourceFingerprint:
    digest, size = hashlib.sha256(), 0
    while piece := stream.read(_PIECE):
        digest.update(piece)
        size += len(piece)
    return SourceFingerprint(path=path, bytes=size, sha256=digest.hexdigest())


def _fingerprint(source: Source) -> SourceFingerprint:
    if source.kind is SourceKind.HUB_DATASET:
        return SourceFingerprint(path=source.location, bytes=None, sha256=None)
    if source.remote is not None:
        size, version = source.remote.version()
        if version is not None:
            return SourceFingerprint(path=source.location, bytes=size, sha256=None, version=version)
    try:
        with source.open() as stream:
            return _read(source.location, stream)
    except OSError as error:
        raise CorpusError(
            field=source.location,
            expected="a readable file",
            found=error.strerror,
            remedy="check the file and its permissions",
        ) from error
