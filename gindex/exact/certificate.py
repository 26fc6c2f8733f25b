"""What an exact search says of what it may have missed; `certification` estimates it. It loads nothing."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """How likely it is that influence recomputed for every part would give the same hits.

    Attributes:
        probability: That none of the true best was left out, of neither end where both were asked for; a cautious
            estimate, at most .999 while a part is left out.
        outside: Parts that might have been found and whose influence was not recomputed.
        candidates: About how many `candidates` would make the probability .95; None where it is that already.
    """

    probability: float
    outside: int
    candidates: int | None = None
