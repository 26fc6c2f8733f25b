"""Merging volumes: consecutive ones become one, with one FAISS file. Ordinals and results stay as they are.

Adds leave small volumes. They are merged by size, as a log-structured merge tree does it: volumes below each power of
FANOUT parts become one as soon as they have as many parts together. So few volumes are left however many adds there
were, and a part is written again at most once for each power. Deleted parts stay; `compact` leaves them out.

Other processes write meanwhile: the writers' lock is held for the commit alone.

Source: O'Neil et al. 1996, The log-structured merge-tree.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator

from gindex.change.merged_volume import MergedVolume, Pieces, merging
from gindex.errors import BusyError, GindexError, StoreError
from gindex.files.atomic import remove_tree
from gindex.model.isolation import plain
from gindex.progress import Progress, Silent
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.snapshot import Snapshot
from gindex.store.versions import writing

logger = logging.getLogger(__name__)

FANOUT = 8
"""Ratio of the sizes from which volumes are merged: at most one less than so many of each size are left."""

PARTS_OF_ADD = 8192
"""Most parts that an add merges, at a second or two; larger volumes are left to `merge_due`, and to `compact`."""

PATIENCE = 5.0
"""Seconds for which the merge of an add waits for another process that writes; then it is left to the next add."""

Choice = Callable[[Manifest], range | None]
"""The places of the volumes in a manifest that are to become one; None where none are."""


def merge_due(layout: Layout, progress: Progress | None = None) -> Manifest | None:
    """Merge the volumes of the newest version that are due, of any size, and commit; None where none are.

    Others may write meanwhile, and are waited for when it comes to the commit.

    Raises:
        BusyError: Another process merges.
        CorruptStoreError: A file is damaged.
        StoreError: The index cannot be written.
    """
    return merge_volumes(layout, due, progress or Silent())


def merge_after_add(layout: Layout, manifest: Manifest, progress: Progress) -> Manifest:
    """Merge what is due and small once an add is committed, and return the newest version.

    The documents are added whatever becomes of it, so where it fails that is logged, and the next add tries again.

    Args:
        layout: The index.
        manifest: The version of the add.
        progress: Where the work is reported.
    """

    def small(newest: Manifest) -> range | None:
        return due(newest, PARTS_OF_ADD)

    if small(manifest) is None:
        return manifest
    try:
        return merge_volumes(layout, small, progress, wait=PATIENCE) or manifest
    except BusyError:
        logger.info("small volumes are not merged, as another process writes: the next add tries again")
    except GindexError as error:
        logger.warning("the documents are added; merging small volumes failed, and is tried again later: %s", error)
    return manifest


@plain()
def merge_volumes(layout: Layout, choice: Choice, progress: Progress, *, wait: float = math.inf) -> Manifest | None:
    """Write consecutive volumes of the newest version again as one, and commit; None where none are chosen.

    Where another process takes one of them away meanwhile, by a compact say, it is chosen and written anew.

    Args:
        layout: The index.
        choice: Chooses the volumes.
        progress: Where the work is reported.
        wait: Seconds to wait for another process that writes, when it comes to the commit.

    Raises:
        BusyError: Another process merges, or writes for longer than `wait`.
        CorruptStoreError: A file is damaged.
        StoreError: The index cannot be written.
    """
    with merging(layout):
        while True:
            snapshot = Snapshot.open(layout)
            run = choice(snapshot.manifest)
            if run is None:
                return None
            pieces = Pieces.at(snapshot.manifest, run)
            remove_tree(layout.merging)
            try:
                prepared = MergedVolume.prepare(snapshot, pieces, progress)
            except StoreError:
                if pieces.are_in(Snapshot.open(layout).manifest):
                    raise
                continue  # they were removed meanwhile
            with writing(layout, wait):
                committed = prepared.commit()
            if committed is not None:
                return committed


def due(manifest: Manifest, most: int | None = None) -> range | None:
    """The places of the volumes in a manifest that are to become one; None where none are.

    Args:
        manifest: A version.
        most: Most parts that they may have together; None for any number.
    """
    if manifest.lost_parts or manifest.search.transform is not None:
        return None
    pieces = list(_pieces(manifest))
    sizes = [sum(manifest.volumes[place].parts for place in piece) for piece in pieces]
    limit = FANOUT
    while limit <= sum(sizes):
        limit *= FANOUT
    while limit >= FANOUT:
        smaller = list(itertools.takewhile(lambda size, limit=limit: size < limit, reversed(sizes)))  # type: ignore[misc]
        if len(smaller) > 1 and limit <= sum(smaller) <= (most or sum(smaller)):
            return range(pieces[-len(smaller)].start, len(manifest.volumes))
        limit //= FANOUT
    return None


def _pieces(manifest: Manifest) -> Iterator[range]:
    """The places of volumes that can only be merged together: one FAISS file may hold the parts of several."""
    begins = {run.start for run in manifest.search.runs}
    places = [place for place, volume in enumerate(manifest.volumes) if volume.first_part in begins]
    yield from (range(start, stop) for start, stop in itertools.pairwise([*places, len(manifest.volumes)]))
