"""`gindex reindex`."""

import json
from pathlib import Path

import click

from gindex.config import SecondLevelConfig
from gindex.options import LABORATORY

from .command import GindexCommand
from .options import json_option, option, setting
from .progress import terminal_progress
from .render import second_level_text

KINDS = ("auto", "flat", "fp16", "rabitq", "ivf", "gpu")


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@option(
    "--type",
    "kind",
    type=click.Choice(KINDS),
    default="auto",
    show_default=True,
    help="auto: by size; flat: exact, for small corpora; fp16: folded, in 16 bits; rabitq: signs, re-scored; ivf: "
    "large norms apart, the rest in lists, for millions; gpu: fp16 on all GPUs, on the CPU where there is none.",
)
@option(
    "--second-level",
    type=click.Choice(["on", "off"]),
    group=LABORATORY,
    unset="as it is; a build leaves it off",
    help="Whiten vectors and queries once more, by the second moment of the stored vectors: what EK-FAC leaves of the "
    "curvature. It can do much good, or with few documents much harm.",
)
@setting(SecondLevelConfig, "mu", needs=("second_level=on",), default=None, show_default=str(SecondLevelConfig.mu))
@json_option
def reindex(index: Path, kind: str, second_level: str | None, mu: float | None, as_json: bool) -> None:
    """Build the FAISS index again, from the stored vectors.

    Its recall is measured against a full scan, and it is committed as a new version of INDEX when it is complete. No
    model is needed.

    \b
    Example:
        gindex reindex runs/corpus --type rabitq
        gindex reindex runs/corpus --second-level on --mu 0.3
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.reindex import reindex as run
    from gindex.store.layout import Layout

    on = None if second_level is None else second_level == "on"
    search = run(Layout(index), kind, terminal_progress(), second_level=on, mu=mu).search
    if as_json:
        click.echo(json.dumps(search))
        return
    recall = search["recall"]
    click.echo(
        f"{index / search['file']}: {search['kind']}, recall@10 {recall['at_10']:.3f}, recall@100 "
        f"{recall['at_100']:.3f} of a full scan, {recall['queries']} stored vectors as queries"
    )
    click.echo(f"second level: {second_level_text(search['second_level'])}")
