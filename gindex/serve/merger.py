"""Merges in the background: what an add leaves because it is large is merged while requests go on."""

import logging
import threading

from gindex.change.merge import due, merge_due
from gindex.errors import GindexError
from gindex.serve.indexes import ServedIndex
from gindex.store.layout import Layout

logger = logging.getLogger("gindex.serve")


class Merger:
    """Merges the volumes of indexes that are due, one index at a time; readers keep the version that they have."""

    def __init__(self, changing: threading.Lock) -> None:
        """Take the lock that whoever changes an index holds."""
        self._changing = changing

    def look(self, served: ServedIndex) -> None:
        """Begin to merge in the background where something is due after a change."""
        if due(served.current.manifest) is not None:
            threading.Thread(target=self._merge, args=(served,), name="gindex-merge", daemon=True).start()

    def _merge(self, served: ServedIndex) -> None:
        try:
            with self._changing:
                while merge_due(Layout(served.path)) is not None:
                    served.refresh()
        except GindexError as error:  # another process writes, say: the next change looks again
            logger.warning("index %s: not merged: %s", served.name, error)
