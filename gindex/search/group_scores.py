"""The scores of documents put together by the value of a field of their metadata.

Axes: Q queries, N documents that were scored, P pairs of such a document and a value of it, G groups.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.documents.field_values import FieldValues
from gindex.search.bootstrap import MeanBootstrap
from gindex.search.groups import Bounds, Group, Groups, OtherGroups

Scores = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Ordinals = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """Which of the documents that were scored are in which group; a group is a value that at least one of them has.

    Attributes:
        field_values: The values of all documents.
        scored: How many documents were scored, N.
        values_G: The value of each group, by its place.
        documents_P: Position among the scored documents of each pair, group by group.
        starts_G: Where each group's pairs begin.
    """

    field_values: FieldValues
    scored: int
    values_G: Ordinals
    documents_P: Ordinals
    starts_G: Ordinals

    @classmethod
    def of(cls, field_values: FieldValues, documents_N: Ordinals) -> "Members":
        """Members among documents [N], by their ordinals, ascending."""
        at_P = np.searchsorted(documents_N, field_values.documents_P)
        inside_P = np.append(documents_N, -1)[at_P] == field_values.documents_P
        at_P, values_P = at_P[inside_P], field_values.values_P[inside_P]
        order_P = np.argsort(values_P, kind="stable")
        values_G, starts_G = np.unique(values_P[order_P], return_index=True)
        return cls(
            field_values=field_values,
            scored=len(documents_N),
            values_G=values_G,
            documents_P=at_P[order_P],
            starts_G=starts_G.astype(np.int64),
        )

    @property
    def counts(self) -> Ordinals:
        """Documents of each group."""
        return np.diff(self.starts_G, append=len(self.documents_P))

    def sums(self, scores_N: Scores) -> npt.NDArray[np.float64]:
        """Sum of the scores of each group, in float64."""
        if not len(self.starts_G):
            return np.zeros(0)
        return np.add.reduceat(scores_N[self.documents_P].astype(np.float64), self.starts_G)

    def scores_of(self, group: int, scores_N: Scores) -> npt.NDArray[np.float64]:
        """Scores of the documents of a group."""
        start = int(self.starts_G[group])
        return scores_N[self.documents_P[start : start + int(self.counts[group])]].astype(np.float64)


def group_scores(members: Members, scores_QN: Scores, most: int, seed: int, *, negative: bool) -> list[Groups]:
    """The groups of the documents for each query.

    Args:
        members: Which document is in which group.
        scores_QN: Scores of the documents [Q, N].
        most: Most groups that are given, from both ends.
        seed: Seed of the bootstrap.
        negative: Give the most negative sums first.
    """
    bootstrap = MeanBootstrap(seed)
    return [_groups(members, scores_N, most, bootstrap, negative=negative) for scores_N in scores_QN]


def _groups(members: Members, scores_N: Scores, most: int, bootstrap: MeanBootstrap, *, negative: bool) -> Groups:
    sums_G, counts_G = members.sums(scores_N), members.counts
    order_G = np.argsort(sums_G if negative else -sums_G, kind="stable")
    total = len(order_G)
    ends = order_G if total <= most else np.concatenate([order_G[: -(-most // 2)], order_G[total - most // 2 :]])
    between = order_G[-(-most // 2) : total - most // 2] if total > most else order_G[:0]
    return Groups(
        field=members.field_values.field,
        documents=members.scored,
        values=total,
        groups=tuple(_group(members, group, scores_N, float(sums_G[group]), bootstrap) for group in ends.tolist()),
        others=OtherGroups(
            values=len(between), documents=int(counts_G[between].sum()), sum=float(sums_G[between].sum())
        )
        if len(between)
        else None,
    )


def _group(members: Members, group: int, scores_N: Scores, total: float, bootstrap: MeanBootstrap) -> Group:
    count = int(members.counts[group])
    mean_interval = bootstrap.interval(members.scores_of(group, scores_N))
    return Group(
        value=members.field_values.values[int(members.values_G[group])],
        documents=count,
        sum=total,
        mean=total / count,
        sum_interval=_times(mean_interval, count),
        mean_interval=mean_interval,
    )


def _times(bounds: Bounds | None, count: int) -> Bounds | None:
    return None if bounds is None else (count * bounds[0], count * bounds[1])
