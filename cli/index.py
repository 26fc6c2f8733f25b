"""`gindex index`."""

import json
from pathlib import Path

import click

from gindex.config import SecondLevelConfig, default_of, help_of

from .command import GindexCommand
from .progress import terminal_progress
from .render import second_level_text

KINDS = ("auto", "flat", "fp16", "rabitq", "ivf", "gpu")


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@click.option(
    "--type",
    "kind",
    type=click.Choice(KINDS),
    default="auto",
    show_default=True,
    help="auto: by size; flat: exact, for small corpora; fp16: folded, in 16 bits; rabitq: signs, re-scored; ivf: "
    "large norms apart, the rest in lists, for millions; gpu: fp16 on all GPUs, on the CPU where there is none.",
)
@click.option(
    "--second-level",
    type=click.Choice(["on", "off"]),
    help="Whiten vectors and queries once more, by the second moment of the stored vectors: what EK-FAC leaves of the "
    "curvature. It can do much good, or with few documents much harm: see docs/decisions/0003-second-level.md. Without "
    "this option it stays as it is; a build leaves it off.",
)
@click.option(
    "--mu",
    type=float,
    help=f"{help_of(SecondLevelConfig, 'mu')}  [default: {default_of(SecondLevelConfig, 'mu')}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def index_command(index: Path, kind: str, second_level: str | None, mu: float | None, as_json: bool) -> None:
    """Build the FAISS index of INDEX again from its stored vectors, and measure its recall against a full scan.

    It is committed as a new version when it is complete. No model is needed.

    \b
    Example:
        gindex index runs/corpus --type rabitq
        gindex index runs/corpus --second-level on --mu 0.3
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.reindex import reindex
    from gindex.store.layout import Layout

    on = None if second_level is None else second_level == "on"
    search = reindex(Layout(index), kind, terminal_progress(), second_level=on, mu=mu).search
    if as_json:
        click.echo(json.dumps(search))
        return
    recall = search["recall"]
    click.echo(
        f"{index / search['file']}: {search['kind']}, recall@10 {recall['at_10']:.3f}, recall@100 "
        f"{recall['at_100']:.3f} of a full scan, {recall['queries']} stored vectors as queries"
    )
    click.echo(f"second level: {second_level_text(search['second_level'])}")
