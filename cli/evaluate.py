"""`gindex evaluate`: how far influence can be trusted. Each of its commands has a module of its own."""

import click

from .command import GindexGroup
from .evaluate_fidelity import fidelity
from .evaluate_lds import lds
from .evaluate_mislabel import mislabel
from .evaluate_poison import poison
from .evaluate_recall import recall
from .evaluate_removal import removal
from .evaluate_tail_patch import tail_patch


@click.group(
    cls=GindexGroup,
    sections={
        "evaluations of an index": [fidelity, recall, poison, tail_patch],
        "evaluations that train": [lds, removal, mislabel],
    },
)
def evaluate() -> None:
    """Measure how far an index, and influence itself, can be trusted.

    Each command prints a table; --out writes a page of it, with figures, and its numbers as JSON.

    \b
    Example:
        gindex evaluate fidelity runs/corpus --sample 16
        gindex evaluate recall runs/facts --queries facts.jsonl
        gindex evaluate poison runs/poisoned --queries bad.jsonl --where "planted = true"
        gindex evaluate tail-patch runs/corpus --queries held-out.jsonl
        gindex evaluate lds digits --work runs/digits
        gindex evaluate removal digits --work runs/digits
        gindex evaluate mislabel digits --work runs/digits
    """  # noqa: D301 \b keeps click from wrapping the lines
