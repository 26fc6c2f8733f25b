"""How much of an exhaustive search the search index finds, measured with stored vectors as queries.

Axes: Q queries.
"""

import numpy as np
import numpy.typing as npt

from gindex.search.funnel import Funnel
from gindex.search.scan import scan
from gindex.store.reader import VectorReader
from gindex.store.records import Recall

QUERIES = 32
DEPTHS = (10, 100)


def measure_recall(funnel: Funnel, reader: VectorReader, excluded: npt.NDArray[np.int64], seed: int) -> Recall:
    """Search for a sample of stored vectors, drawn with the seed, by both ways."""
    usable = reader.spec.parts - len(excluded)
    if not usable:
        return Recall(at_10=1.0, at_100=1.0, queries=0)
    places = np.sort(np.random.default_rng(seed).choice(usable, min(QUERIES, usable), replace=False))
    drawn = _usable_parts(places, excluded)
    queries_QD, own = funnel.scoring_queries(reader.decoded(drawn)), drawn[:, None]
    skipped = np.zeros(reader.spec.parts, bool)
    skipped[excluded] = True
    best, _ = scan(reader, queries_QD, max(DEPTHS) + 1, excluded=skipped)
    shares = []
    for depth in DEPTHS:
        found = [ranking.ordinals for ranking in funnel.search(queries_QD, depth + 1)]
        wanted = [row[row != part][:depth] for row, part in zip(best, own, strict=True)]
        shares.append(np.mean([np.isin(w, f).mean() if len(w) else 1.0 for w, f in zip(wanted, found, strict=True)]))
    return Recall(at_10=round(float(shares[0]), 4), at_100=round(float(shares[1]), 4), queries=len(drawn))


def _usable_parts(places: npt.NDArray[np.int64], excluded: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Ordinals of the parts at some places among those that are not excluded, which are in order."""
    before = excluded - np.arange(len(excluded))  # how many usable ones come before each excluded one
    ordinals: npt.NDArray[np.int64] = places + np.searchsorted(before, places, "right")
    return ordinals
