"""The indexes of a service: their opening, new versions, and what happens when they are damaged."""

import errno
import logging
import re
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gindex.change.verify import verify
from gindex.errors import ConfigError, CorruptStoreError, GindexError, UnavailableError, UnknownIndexError
from gindex.index import GradientIndex
from gindex.serve.batcher import Batcher, warm_query
from gindex.serve.metrics import Metrics
from gindex.serve.problems import reason_of
from gindex.store.layout import Layout
from gindex.store.versions import latest_version

logger = logging.getLogger("gindex.serve")

_FIRST_RETRY, _LONGEST_RETRY = 1.0, 60.0
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR)


@dataclass(frozen=True, kw_only=True)
class IndexLocation:
    """An index to serve: under which name, from which folder, and where its model is if it has moved."""

    name: str
    path: Path
    model: str | None = None


def index_locations(arguments: Sequence[str], models: Sequence[str] = ()) -> list[IndexLocation]:
    """Return the indexes that arguments name: `NAME=FOLDER`, or `FOLDER`, whose name is its last part.

    Args:
        arguments: The indexes.
        models: Where models are: `NAME=PLACE` for the index of the name, or `PLACE` for all others.

    Raises:
        ConfigError: A name is used twice, holds characters that a URL would have to escape, or is no index's.
    """
    locations: dict[str, IndexLocation] = {}
    for argument in arguments:
        name, named, folder = argument.partition("=")
        path = Path(folder if named else argument)
        name = name if named else path.resolve().name
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ConfigError(
                field=argument, expected="a name of letters, digits, . _ -", found=repr(name), remedy="use NAME=FOLDER"
            )
        if name in locations:
            raise ConfigError(
                field=argument, expected=f"another name than {name!r}, which is taken", remedy="use NAME=FOLDER"
            )
        locations[name] = IndexLocation(name=name, path=path)
    return [
        replace(location, model=model)
        for location, model in zip(locations.values(), _models(locations, models), strict=True)
    ]


def _models(locations: Collection[str], models: Sequence[str]) -> list[str | None]:
    """Return the place that is given for the model of each index, None where there is none."""
    given: dict[str, str] = {}
    for argument in models:
        name, named, place = argument.partition("=")
        name, place = (name, place) if named and name in locations else ("", argument)
        if name in given:
            raise ConfigError(
                field=f"`model` {argument}",
                expected="one place for each index and one for all others",
                found=f"two for {name or 'all others'}",
                remedy=f"use NAME=PLACE with the name of an index ({', '.join(locations)})",
            )
        given[name] = place
    return [given.get(name, given.get("")) for name in locations]


def is_shortage(error: BaseException | None) -> bool:
    """Say whether an error comes from a lack of open files, memory or disk space, which harms no file of an index."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGES):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


class ServedIndex:
    """One index of a service: its present version, or the reason why there is none."""

    def __init__(
        self,
        location: IndexLocation,
        batcher: Batcher,
        metrics: Metrics,
        permissions: Mapping[str, Any],
        *,
        device: str,
        model: bool,
        most_seconds: float,
    ) -> None:
        """Name it; `refresh` opens it.

        Args:
            location: Name and folder.
            batcher: Answers its queries.
            metrics: Metrics of the service.
            permissions: Permissions of its model, as `ServeConfig.permissions`.
            device: Device that its model runs on.
            model: Whether prompts are answered; else only vectors are, and the model is not loaded.
            most_seconds: Longest time that a filter, or a search for words, may take.
        """
        self.name, self.batcher, self.model = location.name, batcher, model
        self._permissions = permissions
        self._most_seconds = most_seconds
        self._layout, self._device, self._metrics = Layout(location.path), device, metrics
        self._model_place = location.model
        self._reason = "it is being loaded"
        self._current: GradientIndex | None = None
        self._identity: tuple[int, int, int] | None = None
        self._suspect, self._retry_at, self._retry = False, 0.0, _FIRST_RETRY
        self._refreshing = threading.Lock()
        metrics.ready.labels(self.name).set(0)

    @property
    def ready(self) -> bool:
        """Whether it answers queries."""
        return self._current is not None

    @property
    def reason(self) -> str | None:
        """The reason why it does not answer, for clients; None where it does."""
        return None if self.ready else self._reason

    @property
    def current(self) -> GradientIndex:
        """The version that answers now; a request stays with the version that it began with.

        Raises:
            UnavailableError: There is none: still loading, gone, or damaged.
        """
        current = self._current
        if current is None:
            raise UnavailableError(
                expected=f"the index {self.name} to be ready",
                found=f"that it is not: {self._reason}",
                remedy="try again later",
            )
        return current

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._layout.root

    def suspect(self, error: Exception) -> None:
        """Give the present version up after an error of a request, unless the process merely lacked files or memory."""
        if not is_shortage(error):
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Give the present version up, whose files are damaged. It is opened again once they are whole."""
        logger.error("index %s: unavailable: %s", self.name, error)
        self._reason = reason_of(error)
        self._current, self._identity, self._suspect = None, None, True
        self._metrics.ready.labels(self.name).set(0)

    def refresh(self) -> None:
        """Switch to the newest version if that is not the present one; a GindexError is logged, not raised."""
        with self._refreshing:
            try:
                self._refresh()
            except GindexError as error:
                if is_shortage(error):
                    logger.error("index %s: not looked at: %s", self.name, error)
                    return
                if self._current is not None or time.monotonic() >= self._retry_at:
                    self.fail(error)
                self._retry_at = time.monotonic() + self._retry
                self._retry = min(2 * self._retry, _LONGEST_RETRY)

    def _refresh(self) -> None:
        identity = self._newest()
        if self._current is not None and identity == self._identity:
            for file in self._current.manifest.files:
                file.check_length(self._layout.root)
            return
        if self._current is None and time.monotonic() < self._retry_at:
            return
        if self._suspect:  # damage need not change a file's length, so all checksums are compared
            problems = verify(self._layout)["problems"]
            if problems:
                raise CorruptStoreError("; ".join(problems))
        opened = self._open()
        self._current, self._identity = opened, identity
        self._suspect, self._retry = False, _FIRST_RETRY
        logger.info("index %s: version %d", self.name, opened.manifest.version)
        self._metrics.ready.labels(self.name).set(1)
        self._metrics.version.labels(self.name).set(opened.manifest.version)
        self._metrics.reloads.labels(self.name).inc()
        recall = opened.manifest.search.recall
        if recall is not None:
            for depth, share in (("10", recall.at_10), ("100", recall.at_100)):
                self._metrics.recall.labels(self.name, depth).set(share)

    def _newest(self) -> tuple[int, int, int]:
        """Return the identity of the newest version: its number, and its manifest's inode and time of change."""
        version = latest_version(self._layout)
        try:
            manifest = self._layout.manifest(version).stat()
        except OSError as error:
            raise CorruptStoreError(
                field=self._layout.root, expected=f"version {version}", found=error.strerror
            ) from error
        return version, manifest.st_ino, manifest.st_mtime_ns

    def _open(self) -> GradientIndex:
        """Open the newest version and load everything that queries need, while the present one still answers."""
        old = self._current
        opened = None if old is None else old.refresh()
        if opened is None or opened is old:  # the same number made anew
            opened = GradientIndex.open(
                self._layout.root, model=self._model_place, device=self._device, resident=True, **self._permissions
            )
        opened.warm(model=self.model)
        opened.snapshot.documents.most_seconds = self._most_seconds
        if self.model and old is None:
            self.batcher.call(lambda: warm_query(opened)).result()
        return opened


class ServedIndexes:
    """All indexes of a service, and the thread that keeps them at their newest versions."""

    def __init__(self, indexes: Sequence[ServedIndex], seconds: float) -> None:
        """Take the indexes, and the seconds between two checks for new versions."""
        self._indexes = {index.name: index for index in indexes}
        self._seconds = seconds
        self._closing = threading.Event()
        self.loaded = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gindex-reload", daemon=True)

    def __iter__(self):  # type: ignore[no-untyped-def]
        """Iterate over the indexes."""
        return iter(self._indexes.values())

    def __getitem__(self, name: str) -> ServedIndex:
        """Return an index by its name.

        Raises:
            UnknownIndexError: There is none.
        """
        try:
            return self._indexes[name]
        except KeyError:
            raise UnknownIndexError(
                expected="the name of an index", found="no such index", remedy="see /v1/indexes"
            ) from None

    def start(self) -> None:
        """Start to load the indexes, then to look for new versions."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            for index in self._indexes.values():
                try:
                    index.refresh()
                except Exception as error:  # a fault of ours in one index must not end the watch over the others
                    logger.exception("index %s", index.name)
                    index.suspect(error)
            self.loaded.set()
            self._closing.wait(self._seconds)
