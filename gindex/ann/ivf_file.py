"""Making an ivf index: its centres found or used again, parts encoded in pieces, lists of earlier files copied.

Axes: N parts, F folded dimension.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gindex.ann.blocks import evenly_spaced, run_blocks
from gindex.ann.centres import Centres, Ordinals, Vectors, find_centres, read_centres, sample_size
from gindex.ann.library import translated_errors
from gindex.ann.lists import ID_BYTES, EarlierLists, Lists, Scratch, write_lists
from gindex.ann.spec import GROWTH, PROBED, FaissSpec

logger = logging.getLogger(__name__)

DECODED = 1024
"""Vectors that are decoded at once."""

PIECE_BYTES = 256 << 20
"""Bytes of the codes that are in memory at once."""

Folded = Callable[[FaissSpec, Ordinals], Vectors]
"""Gives the folded vectors of parts, in the form of a spec."""


@dataclass(frozen=True, kw_only=True)
class EarlierIvf:
    """An ivf index of the version before, whose centres are used again.

    Attributes:
        path: Its file.
        spec: How it was made.
        run: Ordinals of its parts, which have the vectors that they had; None where that is not so.
    """

    path: Path
    spec: FaissSpec
    run: range | None


def write_ivf(
    faiss: Any,
    path: Path,
    spec: FaissSpec,
    run: range,
    total: int,
    folded: Folded,
    earlier: Sequence[EarlierIvf],
    done: Callable[[int], None],
) -> FaissSpec:
    """Publish an ivf index of consecutive parts.

    Args:
        faiss: The module.
        path: Where.
        spec: How it is made where its centres are new.
        run: Ordinals of the parts.
        total: How many parts there are in all files.
        folded: Gives their folded vectors.
        earlier: Those whose centres are used again, and whose lists are copied, in the order of the ordinals.
        done: Called with the number of parts that were encoded or copied.

    Returns:
        How it was made.

    Raises:
        CorruptStoreError: A file of `earlier` holds no such index.
        StoreError: It cannot be written.
    """
    spec, centres = _centres(faiss, spec, run, total, folded, earlier)
    rows = max(DECODED, PIECE_BYTES // (centres.index.code_size + ID_BYTES))

    def encoded(scratch: Scratch, parts: range) -> Lists:
        def blocks() -> Iterator[tuple[Ordinals, Vectors]]:
            for block in run_blocks(parts, DECODED):
                yield block - run.start, folded(spec, block)
                done(len(block))

        return scratch.piece(centres, len(parts), blocks())

    with translated_errors(path), Scratch(path.with_name(f"{path.name}.pieces.partial")) as scratch:
        lists: list[Lists] = []
        start = run.start
        for of, copied in _copied(faiss, centres, run, spec, earlier):
            lists += [encoded(scratch, parts) for parts in _stretches(range(start, copied.start), rows)]
            lists.append(EarlierLists(faiss, of.path, copied.start - run.start))
            done(len(copied))
            start = copied.stop
        lists += [encoded(scratch, parts) for parts in _stretches(range(start, run.stop), rows)]
        write_lists(faiss, centres, lists, path)
    return spec


def _centres(
    faiss: Any, spec: FaissSpec, run: range, total: int, folded: Folded, earlier: Sequence[EarlierIvf]
) -> tuple[FaissSpec, Centres]:
    """Centres that are there already, unless there are too many parts for them, or new ones."""
    known = [of for of in earlier if of.spec.centres is not None]
    for of in known[:1]:
        record = of.spec.centres
        if record is not None and total <= GROWTH * record.parts:
            return replace(of.spec, largest=()), read_centres(faiss, of.path, record)
    if earlier:
        before = f"{known[0].spec.centres.parts:,}" if known and known[0].spec.centres else "an unknown number"
        logger.warning(
            "search index: the centres of its lists are found anew among %s parts; those until now were found among %s",
            f"{total:,}",
            before,
        )
    first = folded(spec, np.arange(run.start, run.start + 1))
    sample = run.start + evenly_spaced(len(run), sample_size(spec.lists, first.shape[1]))

    def vectors(ordinals: Ordinals) -> Vectors:
        vectors_NF = np.empty((len(ordinals), first.shape[1]), np.float32)
        for start in range(0, len(ordinals), DECODED):
            vectors_NF[start : start + DECODED] = folded(spec, ordinals[start : start + DECODED])
        return vectors_NF

    centres = find_centres(faiss, spec.lists, sample, vectors, total)
    lists = len(centres.directions_LF)
    return replace(spec, lists=lists, probes=max(1, lists // PROBED), centres=centres.record), centres


def _copied(
    faiss: Any, centres: Centres, run: range, spec: FaissSpec, earlier: Sequence[EarlierIvf]
) -> Iterator[tuple[EarlierIvf, range]]:
    """The earlier indexes of parts of a run that have the same lists, with their parts."""
    for of in earlier:
        record = of.spec.centres
        if of.run is None or record != centres.record or of.spec.folds != spec.folds:
            continue
        if of.run.start >= run.start and of.run.stop <= run.stop:
            known = read_centres(faiss, of.path, centres.record)
            if np.array_equal(known.directions_LF, centres.directions_LF):
                yield of, of.run


def _stretches(parts: range, most: int) -> Iterator[range]:
    """Consecutive parts in stretches of so many at most."""
    return (parts[start : start + most] for start in range(0, len(parts), most))
