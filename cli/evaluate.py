"""`gindex evaluate`: how far influence can be trusted. Each of its commands has a module of its own."""

import click

from .evaluate_fidelity import fidelity
from .evaluate_lds import lds
from .evaluate_mislabel import mislabel
from .evaluate_removal import removal


@click.group()
def evaluate() -> None:
    """Measure how far an index, and influence itself, can be trusted.

    \b
    Example:
        gindex evaluate fidelity runs/corpus --sample 16
        gindex evaluate lds digits --work runs/digits
        gindex evaluate removal digits --work runs/digits
        gindex evaluate mislabel digits --work runs/digits
    """  # noqa: D301 \b keeps click from wrapping the lines


for command in (fidelity, lds, removal, mislabel):
    evaluate.add_command(command)
