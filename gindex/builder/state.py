"""The state of a build: one builder at a time, and what an unfinished build was started with."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from gindex.config import BuildConfig
from gindex.corpus.fingerprints import SourceFingerprint, check_unchanged
from gindex.errors import NotAnIndexError, SettingsMismatchError, StoreError
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest, read_content, read_json, write_json


@contextmanager
def building(layout: Layout) -> Iterator[None]:
    """Hold the index directory for one build; made if it isn't there.

    Raises:
        NotAnIndexError: The directory holds something else.
        StoreError: It cannot be written, or another build holds it.
    """
    try:
        _check_directory(layout)
        layout.root.mkdir(parents=True, exist_ok=True)
        lock = layout.lock.open("a")
    except OSError as error:
        raise StoreError(
            f"{layout.root}: expected a directory to write to, found {error.strerror}; check --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(
                f"{layout.root}: another build is writing here; wait for it or give another --out"
            ) from error
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StoreError(
                f"{layout.root}: expected to write the index, found {error}; check free space and permissions, then "
                "run the same command again"
            ) from error


def start_or_resume(layout: Layout, config: BuildConfig, sources: list[SourceFingerprint]) -> None:
    """Record what the build is started with, or check that an unfinished build was started with the same.

    Until the corpus is read nothing is kept that other settings or sources would contradict: the build starts afresh.

    Raises:
        SettingsMismatchError: It was started with other settings.
        CorpusChangedError: A source has changed since.
    """
    given = _comparable(config.settings())
    if not layout.documents.is_file():
        write_json(layout.build, {"settings": given, "sources": [asdict(source) for source in sources]})
        return
    content = _read_build(layout)
    check_same_settings(layout, content["settings"], given)
    check_unchanged([SourceFingerprint(**source) for source in content["sources"]], sources)


def check_finished(layout: Layout, manifest: Manifest, config: BuildConfig, sources: list[SourceFingerprint]) -> None:
    """Check that a finished index has the settings and sources asked for.

    Raises:
        SettingsMismatchError: It was made with other settings.
        CorpusChangedError: It was made from other sources.
    """
    check_same_settings(layout, _comparable(manifest.settings), _comparable(config.settings()))
    check_unchanged([SourceFingerprint(**source) for source in manifest.sources], sources)


def check_model(layout: Layout, fingerprints: dict[str, str]) -> None:
    """Record the model of a build, or check that it is the one that the build was started with.

    Raises:
        SettingsMismatchError: It is another model or tokenizer.
    """
    content = _read_build(layout)
    check_same_model(layout, content.setdefault("model", fingerprints), fingerprints)
    write_json(layout.build, content)


def check_same_model(layout: Layout, recorded: dict[str, str], given: dict[str, str]) -> None:
    """Compare what identifies two models.

    Raises:
        SettingsMismatchError: They differ.
    """
    for key, value in given.items():
        if recorded[key] != value:
            raise SettingsMismatchError(
                f"{layout.root}: expected {key} {recorded[key][:12]}, found {value[:12]}; the index there is made with "
                "another one: give that, or another --out"
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
                f"{layout.root}: expected {name} {was.get(name)}, found {now.get(name)}; the index there was made with "
                "other settings: give the same ones, or another --out"
            )


def _comparable(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out the model's path: the same model may lie elsewhere, and its fingerprint is compared instead."""
    model = {key: value for key, value in settings["model"].items() if key != "name"}
    return settings | {"model": model}


def _flatten(settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _read_build(layout: Layout) -> dict[str, Any]:
    content = read_json(layout.build)
    if not {"settings", "sources"} <= content.keys():
        raise NotAnIndexError(f"{layout.build}: expected the record of a build, found another file; give another --out")
    return content


def _check_directory(layout: Layout) -> None:
    """Refuse a directory of someone else before anything is written to it."""
    root = layout.root
    if root.exists() and not root.is_dir():
        raise NotAnIndexError(f"{root}: expected a directory for the index, found a file; give another --out")
    if layout.manifest.is_file():
        read_content(layout)
    elif layout.build.is_file():
        _read_build(layout)
    elif root.is_dir() and any(path != layout.lock for path in root.iterdir()):
        raise NotAnIndexError(f"{root}: expected an empty directory or an index, found other files; give another --out")
