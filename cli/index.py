"""`gindex index`."""

import json
from pathlib import Path
from typing import Any

import click

from gindex.config import NO_TRANSFORM, TRANSFORMS

from .command import GindexCommand
from .kinds import kind_options, kind_settings
from .progress import terminal_progress
from .render import transform_text

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
    "--transform",
    type=click.Choice([*TRANSFORMS.names(), NO_TRANSFORM]),
    help=f"Transform vectors and queries before they are compared; {NO_TRANSFORM} compares them as they are. Without "
    f"this option it stays as it is; a build takes {NO_TRANSFORM}.",
)
@kind_options(TRANSFORMS, "transform")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def index_command(index: Path, kind: str, transform: str | None, as_json: bool, **settings: Any) -> None:
    """Build the FAISS index of INDEX again from its stored vectors, and measure its recall against a full scan.

    It is committed as a new version when it is complete. No model is needed.

    \b
    Example:
        gindex index runs/corpus --type rabitq
        gindex index runs/corpus --transform second-level --transform-mu 0.3
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.reindex import reindex
    from gindex.store.layout import Layout
    from gindex.store.values import values_of

    transform_settings = kind_settings(TRANSFORMS, "transform", settings)
    made = reindex(Layout(index), kind, terminal_progress(), transform=transform, transform_settings=transform_settings)
    search = values_of(made.search)
    if as_json:
        click.echo(json.dumps(search))
        return
    recall = search["recall"]
    click.echo(
        f"{index / search['file']}: {search['kind']}, recall@10 {recall['at_10']:.3f}, recall@100 "
        f"{recall['at_100']:.3f} of a full scan, {recall['queries']} stored vectors as queries"
    )
    click.echo(f"transform: {transform_text(search.get('transform'))}")
