"""The state of a build: what an unfinished build was started with, and what may run at once."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gindex.config import BuildConfig, as_of_today
from gindex.corpus.fingerprints import check_unchanged
from gindex.corpus.source_fingerprint import SourceFingerprint
from gindex.errors import BusyError, CorruptStoreError, NotAnIndexError, SettingsMismatchError, StoreError
from gindex.files.atomic import make_folder
from gindex.files.locks import held
from gindex.model.fingerprints import NO_ADAPTER
from gindex.store.files import FileRecord, read_json, write_json
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest, read_content
from gindex.store.values import record_of, values_of
from gindex.store.versions import explained, latest_version, version_numbers


@contextmanager
def building(layout: Layout) -> Iterator[None]:
    """Join the builders of an index directory; made if it isn't there.

    Raises:
        NotAnIndexError: The directory holds something else.
        BusyError: Something other than a build is writing to the index.
        StoreError: It cannot be written.
    """
    try:
        check_directory(layout)
        make_folder(layout.root)
    except OSError as error:
        raise StoreError(
            field=layout.root, expected="a directory to write to", found=error.strerror, remedy="check `out`"
        ) from error
    with explained(layout), held(layout.lock, shared=True):
        yield


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Be the one of several builders that does what is not done by segment; the others wait."""
    with held(layout.claim("build"), wait=math.inf):
        yield


@contextmanager
def claimed(layout: Layout, volume: int, segment: int, wait: bool) -> Iterator[bool]:
    """Claim a segment; False where another process has it, and `wait` is not set. A dead process's claim is free."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held(layout.claim(f"{volume:05d}-{segment:05d}"), wait=math.inf if wait else 0.0))
            mine = True
        except BusyError:
            mine = False
        yield mine


def start_or_resume(layout: Layout, config: BuildConfig, sources: Sequence[SourceFingerprint]) -> None:
    """Record what the build is started with, or check that an unfinished build was started with the same.

    Until the corpus is read nothing is kept that other settings or sources would contradict: the build starts afresh.

    Raises:
        SettingsMismatchError: It was started with other settings.
        CorpusChangedError: A source has changed since.
    """
    if not layout.volume(0).documents.is_file():
        origin = values_of(sources)
        given = comparable(config.settings())
        write_json(layout.build, {"settings": given, "sources": origin, "files": []})
        return
    _check_unfinished(layout, config, sources)


def check_start(layout: Layout, config: BuildConfig, sources: Sequence[SourceFingerprint]) -> None:
    """Check that a build may start in a directory, or go on there, before the model is loaded; writes nothing.

    Raises:
        NotAnIndexError: The directory holds something else.
        SettingsMismatchError: What is there was started with other settings.
        CorpusChangedError: A source has changed since.
    """
    check_directory(layout)
    try:
        if not version_numbers(layout) and layout.build.is_file() and layout.volume(0).documents.is_file():
            _check_unfinished(layout, config, sources)
    except NotAnIndexError:
        if not version_numbers(layout):  # another builder may have finished it meanwhile
            raise
    if version_numbers(layout):
        check_finished(layout, Manifest.read(layout, latest_version(layout)), config, sources)


def _check_unfinished(layout: Layout, config: BuildConfig, sources: Sequence[SourceFingerprint]) -> None:
    content = _read_build(layout)
    check_same_settings(layout, comparable(content["settings"]), comparable(config.settings()))
    check_unchanged([SourceFingerprint(**source) for source in content["sources"]], sources)


def record_files(layout: Layout, paths: Sequence[Path]) -> None:
    """Record the checksums of finished files, so that they are known when an unfinished build goes on."""
    content = _read_build(layout)
    recorded = {file["path"]: file for file in content["files"]}
    for path in paths:
        record = FileRecord.of(layout.root, path)
        recorded[record.path] = values_of(record)
    write_json(layout.build, content | {"files": list(recorded.values())})


def remove_damaged(layout: Layout) -> None:
    """Remove finished files of an unfinished build that are no longer what they were: they are made again."""
    for content in _read_build(layout)["files"]:
        record = record_of(FileRecord, content)
        try:
            record.check_content(layout.root)
        except CorruptStoreError:
            (layout.root / record.path).unlink(missing_ok=True)


def check_finished(
    layout: Layout, manifest: Manifest, config: BuildConfig, sources: Sequence[SourceFingerprint]
) -> None:
    """Check that a finished index has the settings and sources asked for.

    Raises:
        SettingsMismatchError: It was made with other settings.
        CorpusChangedError: It was made from other sources.
    """
    check_same_settings(layout, comparable(manifest.settings.settings()), comparable(config.settings()))
    check_unchanged(manifest.sources, sources)


def check_model(layout: Layout, fingerprints: dict[str, str]) -> None:
    """Record the model of a build, or check that it is the one that the build was started with.

    Raises:
        SettingsMismatchError: It is another model or tokenizer.
    """
    content = _read_build(layout)
    check_same_model(layout, content.setdefault("model", fingerprints), fingerprints)
    write_json(layout.build, content)


def check_same_model(layout: Layout, recorded: dict[str, Any], given: dict[str, str]) -> None:
    """Compare what identifies two models; what an older gindex did not record is passed over.

    Raises:
        SettingsMismatchError: They differ.
    """
    recorded, given = NO_ADAPTER | recorded, NO_ADAPTER | given
    for key, value in given.items():
        if recorded.get(key, value) != value:
            raise SettingsMismatchError(
                field=layout.root,
                expected=f"{key} {recorded[key][:12] or 'none'}",
                found=value[:12] or "none",
                remedy="the index there is made with another one: give that, or another `out`",
            )


def check_same_settings(layout: Layout, recorded: dict[str, Any], given: dict[str, Any]) -> None:
    """Compare two sets of settings and name the first that differs.

    Raises:
        SettingsMismatchError: They differ.
    """
    was, now = _flatten(recorded), _flatten(given)
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            raise SettingsMismatchError(
                field=layout.root,
                expected=f"{name} {was.get(name)}",
                found=now.get(name),
                remedy="the index there was made with other settings: give the same ones, or another `out`",
            )


def comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as of today, without where the model is: it may have moved, its fingerprint is compared instead."""
    settings = as_of_today(settings)
    model = {key: value for key, value in settings["model"].items() if key not in ("name", "adapter", "base")}
    return settings | {"model": model}


def _flatten(settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _read_build(layout: Layout) -> dict[str, Any]:
    """Read the record of an unfinished build.

    Raises:
        NotAnIndexError: The file is another one's.
    """
    try:
        content = read_json(layout.build)
    except CorruptStoreError as error:
        raise NotAnIndexError(
            field=layout.build,
            expected="the record of a build",
            found="another file or a damaged one",
            remedy="give another `out`, or remove the directory to build afresh",
        ) from error
    if not {"settings", "sources", "files"} <= content.keys():
        raise NotAnIndexError(
            field=layout.build, expected="the record of a build", found="another file", remedy="give another `out`"
        )
    return content


def check_directory(layout: Layout) -> None:
    """Refuse a directory of someone else before anything is written to it.

    Raises:
        NotAnIndexError: It holds something else than an index or the start of one.
    """
    root = layout.root
    if root.exists() and not root.is_dir():
        raise NotAnIndexError(
            field=root, expected="a directory for the index", found="a file", remedy="give another `out`"
        )
    # Another builder may be at work. It writes its record first and removes it after the first version is there, so
    # looking for them in this order finds one of them at any moment.
    foreign = root.is_dir() and not all(_is_of_a_start(path.name) for path in root.iterdir())
    unfinished = layout.build.is_file()
    if version_numbers(layout):
        read_content(layout.manifest(latest_version(layout)))
    elif unfinished:
        _check_record(layout)
    elif foreign:
        raise NotAnIndexError(
            field=root, expected="an empty directory or an index", found="other files", remedy="give another `out`"
        )


def _check_record(layout: Layout) -> None:
    """Check that the record of an unfinished build is one, or that the build has been finished meanwhile."""
    try:
        _read_build(layout)
    except NotAnIndexError:
        if not version_numbers(layout):
            raise


def _is_of_a_start(name: str) -> bool:
    """Whether a build leaves a file of this name when it is killed before `build.json` is there."""
    return name.startswith((".lock", "build.json."))
