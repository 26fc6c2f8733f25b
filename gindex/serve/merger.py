"""Merges in the background: what an add leaves because it is large is merged while requests and changes go on."""

import logging
import threading

from gindex.change.merge import due, merge_due
from gindex.errors import BusyError, GindexError
from gindex.serve.indexes import ServedIndex
from gindex.store.layout import Layout

logger = logging.getLogger("gindex.serve")


class Merger:
    """Merges the volumes of indexes that are due, one index at a time; readers keep the version that they have."""

    def __init__(self) -> None:
        """Merge nothing yet."""
        self._merging, self._waiting = threading.Lock(), set[str]()

    def look(self, served: ServedIndex) -> None:
        """Begin to merge in the background where something is due after a change."""
        if served.name not in self._waiting and due(served.current.manifest) is not None:
            self._waiting.add(served.name)
            threading.Thread(target=self._merge, args=(served,), name="gindex-merge", daemon=True).start()

    def _merge(self, served: ServedIndex) -> None:
        with self._merging:
            self._waiting.discard(served.name)  # what is changed from here on is looked at again
            try:
                while merge_due(Layout(served.path)) is not None:
                    served.refresh()
            except BusyError:
                logger.info("index %s: another process merges", served.name)
            except GindexError as error:  # the next change looks again
                logger.warning("index %s: not merged: %s", served.name, error)
