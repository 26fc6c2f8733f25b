"""`gindex reindex`."""

import json
from pathlib import Path
from typing import Any

import click

from gindex.config import NO_TRANSFORM, TRANSFORMS
from gindex.options import LABORATORY

from .command import GindexCommand
from .kinds import kind_options, kind_settings
from .options import json_option, option
from .progress import terminal_progress
from .render import transform_text

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
    "--transform",
    type=click.Choice([*TRANSFORMS.names(), NO_TRANSFORM]),
    group=LABORATORY,
    unset=f"as it is; a build takes {NO_TRANSFORM}",
    help="Transform vectors and queries before they are compared: it can do good, or with few documents much harm.",
)
@kind_options(TRANSFORMS, "transform")
@json_option
def reindex(index: Path, kind: str, transform: str | None, as_json: bool, **given: Any) -> None:
    """Build the FAISS index again, from the stored vectors.

    Its recall is measured against a full scan, and it is committed as a new version of INDEX when it is complete. No
    model is needed.

    \b
    Example:
        gindex reindex runs/corpus --type rabitq
        gindex reindex runs/corpus --transform second-level --transform-mu 0.3
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.reindex import reindex as run
    from gindex.store.layout import Layout
    from gindex.store.values import values_of

    transform_settings = kind_settings(TRANSFORMS, "transform", given)
    version = run(Layout(index), kind, terminal_progress(), transform=transform, transform_settings=transform_settings)
    search = {**values_of(version.search.main), **values_of(version.search)}
    del search["faiss"]
    if as_json:
        click.echo(json.dumps(search))
        return
    recall = search["recall"]
    click.echo(
        f"{index / search['file']}: {search['kind']}, recall@10 {recall['at_10']:.3f}, recall@100 "
        f"{recall['at_100']:.3f} of a full scan, {recall['queries']} stored vectors as queries"
    )
    click.echo(f"transform: {transform_text(search.get('transform'))}")
