"""The indexes of a service: opened, warmed, switched to a new version, and given up where they are damaged."""

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
from gindex.serve.engine import Engine, warm_query
from gindex.serve.metrics import Metrics
from gindex.serve.problems import reason_of
from gindex.store.layout import Layout
from gindex.store.versions import latest_version

logger = logging.getLogger("gindex.serve")

_FIRST_RETRY, _LONGEST_RETRY = 1.0, 60.0
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR)


@dataclass(frozen=True, kw_only=True)
class Place:
    """An index to serve: under which name, from which folder, and where its model is if not where it was."""

    name: str
    path: Path
    model: str | None = None


def places_of(arguments: Sequence[str], models: Sequence[str] = ()) -> list[Place]:
    """Return the indexes that arguments name: `NAME=FOLDER`, or `FOLDER`, whose name is its last part.

    Args:
        arguments: The indexes.
        models: Where models are: `NAME=PLACE` for the index of the name, or `PLACE` for all others.

    Raises:
        ConfigError: A name is used twice, holds characters that a URL would have to escape, or is no index's.
    """
    places: dict[str, Place] = {}
    for argument in arguments:
        name, found, folder = argument.partition("=")
        path = Path(folder if found else argument)
        name = name if found else path.resolve().name
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ConfigError(
                field=argument, expected="a name of letters, digits, . _ -", found=repr(name), remedy="use NAME=FOLDER"
            )
        if name in places:
            raise ConfigError(
                field=argument, expected=f"another name than {name!r}, which is taken", remedy="use NAME=FOLDER"
            )
        places[name] = Place(name=name, path=path)
    return [replace(place, model=model) for place, model in zip(places.values(), _models(places, models), strict=True)]


def _models(places: Collection[str], models: Sequence[str]) -> list[str | None]:
    """Return the place that is given for the model of each index, None where there is none."""
    given: dict[str, str] = {}
    for argument in models:
        name, found, place = argument.partition("=")
        name, place = (name, place) if found and name in places else ("", argument)
        if name in given:
            raise ConfigError(
                field=f"`model` {argument}",
                expected="one place for each index and one for all others",
                found=f"two for {name or 'all others'}",
                remedy=f"use NAME=PLACE with the name of an index ({', '.join(places)})",
            )
        given[name] = place
    return [given.get(name, given.get("")) for name in places]


def is_shortage(error: BaseException | None) -> bool:
    """Say whether an error comes from too many open files, or too little memory or space: that harms no file."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORTAGES):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


class ServedIndex:
    """One index: its present version, or why there is none."""

    def __init__(
        self,
        place: Place,
        engine: Engine,
        metrics: Metrics,
        permissions: Mapping[str, Any],
        *,
        device: str,
        model: bool,
        most_seconds: float,
    ) -> None:
        """Name it; `refresh` opens it.

        Args:
            place: Name and folder.
            engine: What answers its queries.
            metrics: Where its state is told.
            permissions: What its model may do, as `ServeConfig.permissions`.
            device: Device of the passes.
            model: Whether prompts are answered; without, vectors only, and the model is not loaded.
            most_seconds: Longest time that the documents of a filter, or with words, are looked for.
        """
        self.name, self.engine, self.model = place.name, engine, model
        self._permissions = permissions
        self._most_seconds = most_seconds
        self._layout, self._device, self._metrics = Layout(place.path), device, metrics
        self._model_place = place.model
        self._reason = "it is being loaded"
        self._current: GradientIndex | None = None
        self._identity: tuple[int, int, int] | None = None
        self._suspect, self._retry_at, self._retry = False, 0.0, _FIRST_RETRY
        self._refreshing = threading.Lock()
        metrics.ready.labels(self.name).set(0)

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._current is not None

    @property
    def reason(self) -> str | None:
        """Why it does not answer, for those who ask it; None where it does."""
        return None if self.ready else self._reason

    @property
    def current(self) -> GradientIndex:
        """The version that answers now; a request keeps to the one it began with.

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
        """Give the present version up where a request found damage; not where the process lacked something."""
        if not is_shortage(error):
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Give the present version up: its files are found damaged. It is opened again once they are whole."""
        logger.error("index %s: unavailable: %s", self.name, error)
        self._reason = reason_of(error)
        self._current, self._identity, self._suspect = None, None, True
        self._metrics.ready.labels(self.name).set(0)

    def refresh(self) -> None:
        """Open and switch to the newest version where that is not the present one; never raises a GindexError."""
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
        if self._suspect:  # what was found damaged while serving had its full length when it was opened
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
        """Return what tells the newest version from any other: its number, and its manifest's inode and time."""
        version = latest_version(self._layout)
        try:
            found = self._layout.manifest(version).stat()
        except OSError as error:
            raise CorruptStoreError(
                field=self._layout.root, expected=f"version {version}", found=error.strerror
            ) from error
        return version, found.st_ino, found.st_mtime_ns

    def _open(self) -> GradientIndex:
        """Open the newest version and load what queries need, while the present one goes on answering."""
        old = self._current
        opened = None if old is None else old.refresh()
        if opened is None or opened is old:  # the same number made anew
            opened = GradientIndex.open(
                self._layout.root, model=self._model_place, device=self._device, resident=True, **self._permissions
            )
        opened.warm(model=self.model)
        opened.snapshot.documents.most_seconds = self._most_seconds
        if self.model and old is None:
            self.engine.call(lambda: warm_query(opened)).result()
        return opened


class Served:
    """All indexes of a service, and the thread that keeps them at their newest versions."""

    def __init__(self, indexes: Sequence[ServedIndex], seconds: float) -> None:
        """Take the indexes, and how often to look at them."""
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
