"""Whether the corpus files of a resumed build are those that it began with."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from gindex.corpus.folders import list_files
from gindex.corpus.source_fingerprint import SourceFingerprint
from gindex.corpus.sources import Kind, Source, expand
from gindex.errors import CorpusChangedError, CorpusError

_REMEDY = "restore the file or give another `out`"


def fingerprint_sources(sources: Sequence[str]) -> list[SourceFingerprint]:
    """Return one fingerprint per file, in the order in which the files are read.

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
    return f"{item.bytes} bytes with sha256 {(item.sha256 or 'none')[:12]}"


def _paths(source: Source) -> Iterator[Source]:
    """Yield the files that a source consists of, as sources; a saved dataset has several."""
    if source.kind is not Kind.SAVED_DATASET:
        yield source
        return
    for relative in list_files(Path(source.location)).files:
        yield Source(kind=Kind.TEXT, location=str(Path(source.location, relative)), name=relative)


def _fingerprint(source: Source) -> SourceFingerprint:
    if source.kind is Kind.HUB_DATASET:
        return SourceFingerprint(path=source.location, bytes=None, sha256=None)
    try:
        with open(source.location, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return SourceFingerprint(path=source.location, bytes=stream.tell(), sha256=digest)
    except OSError as error:
        raise CorpusError(
            field=source.location,
            expected="a readable file",
            found=error.strerror,
            remedy="check the file and its permissions",
        ) from error
