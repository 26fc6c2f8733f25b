"""How much of a model an index sees: the tracked share of its body, and what is not tracked.

The body is every weight but those of embeddings (`nn.Embedding`, heads tied to them included) and of the output head.
Influence that goes through weights that are not tracked is missing from scores and from exact influence alike.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gindex.config import LEAST_SHARE
from gindex.model.records import UntrackedWeight

BLOCK_NUMBER = r"(?<=\.)\d+(?=\.)"


@dataclass(frozen=True, kw_only=True)
class UntrackedWeights:
    """Weights that are not tracked for one reason.

    Attributes:
        weights: Their names, with `*` for the number of a block.
        count: How many there are.
        parameters: Their values.
        share: Their share of the body's; of all of the model's where `Coverage.of` says so; None outside the body.
        reason: Why they are not tracked.
    """

    weights: str
    count: int
    parameters: int
    share: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What an index sees of its model.

    Attributes:
        share: The tracked share, in [0, 1].
        of: What it is a share of: `body`, or `model`, all weights, in an index that doesn't tell them apart.
        untracked: What is not tracked, the largest first.
    """

    share: float
    of: str
    untracked: tuple[UntrackedWeights, ...]

    @property
    def warning(self) -> str | None:
        """What is to be said aloud: that less than half is tracked; None where more is."""
        if self.share >= LEAST_SHARE:
            return None
        largest = max(self.untracked, key=lambda weights: weights.share or 0, default=None)
        named = "" if largest is None else f"; the largest part left out, {largest.share or 0:.1%}, {largest.weights}"
        return (
            f"only {self.share:.1%} of the model's {'body' if self.of == 'body' else 'weights'} is tracked: influence "
            f"through the rest is not seen{named}"
        )

    def record(self) -> dict[str, Any]:
        """Return it as plain values, the warning with them."""
        untracked = [asdict(weights) for weights in self.untracked]
        return {"share": self.share, "of": self.of, "untracked": untracked, "warning": self.warning}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Coverage":
        """What `record` was made of."""
        untracked = tuple(UntrackedWeights(**weights) for weights in record["untracked"])
        return cls(share=record["share"], of=record["of"], untracked=untracked)


def coverage(whole: int, tracked: int, of: str, untracked: Iterable[UntrackedWeight]) -> Coverage:
    """How much of a model is tracked.

    Args:
        whole: Number of its body's weights, or of all where they aren't told apart.
        tracked: Those of them that are tracked.
        of: `body` or `model`: which of the two it is.
        untracked: Every weight that is not.
    """
    grouped: dict[tuple[str, bool], list[UntrackedWeight]] = {}
    for weight in untracked:
        grouped.setdefault((weight.reason, weight.body), []).append(weight)
    found = []
    for (reason, inside), weights in grouped.items():
        parameters = sum(weight.parameters for weight in weights)
        names = dict.fromkeys(re.sub(BLOCK_NUMBER, "*", weight.name) for weight in weights)
        share = parameters / whole if inside and whole else None
        found.append(
            UntrackedWeights(
                weights=", ".join(names), count=len(weights), parameters=parameters, share=share, reason=reason
            )
        )
    found.sort(key=lambda weights: -weights.parameters)
    return Coverage(share=tracked / whole if whole else 0.0, of=of, untracked=tuple(found))
