"""`gindex add`."""

import json
from pathlib import Path

import click

from gindex.config import CORPUS, BuildConfig, CorpusConfig

from .command import GindexCommand
from .early_checks import check_asked, check_sources
from .options import base_option, device_option, json_option, model_option, opening, option, permission_options, setting
from .progress import terminal_progress
from .render import counted
from .reports import corpus_notes


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("corpus", nargs=-1, required=True)
@option("--replace", is_flag=True, group=CORPUS, help="Delete documents of INDEX that have the id of a new one.")
@setting(CorpusConfig, "text_field", default=None, unset="that of the build")
@setting(CorpusConfig, "id_field", default=None, unset="that of the build")
@setting(CorpusConfig, "limit")
@setting(CorpusConfig, "sample")
@option(
    "--strict",
    is_flag=True,
    group=CORPUS,
    help="Stop at a document whose gradient is not finite, instead of leaving it out.",
)
@model_option
@base_option
@device_option
@permission_options
@setting(BuildConfig, "batch_tokens")
@json_option
def add(
    index: Path,
    corpus: tuple[str, ...],
    replace: bool,
    text_field: str | None,
    id_field: str | None,
    limit: int | None,
    sample: int | None,
    model: str | None,
    device: str,
    batch_tokens: int | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Add documents to an index.

    Their vectors are made with the factors and the projection that INDEX has. An add that was interrupted goes on when
    the same command is given again. A warning says when the new text is far from what the factors were fitted on: its
    scores are then less to be trusted, and a new build is better.

    \b
    Example:
        gindex add runs/corpus more.jsonl
        gindex add runs/corpus corrected.jsonl --replace
    """  # noqa: D301 \b keeps click from wrapping the lines
    check_asked(index)
    check_sources(corpus)

    from gindex.index import GradientIndex

    opened = GradientIndex.open(index, model=model, device=device, **opening())
    with corpus_notes() as notes:
        done = opened.add(
            corpus,
            replace=replace,
            text_field=text_field,
            id_field=id_field,
            limit=limit,
            sample=sample,
            batch_tokens=batch_tokens,
            strict=strict,
            progress=terminal_progress(),
        )
    record = {
        "version": done.manifest.version,
        "added": done.documents,
        "replaced": done.replaced,
        "norm_ratio": done.norm_ratio,
        "far": done.far,
    }
    if as_json:
        click.echo(json.dumps(record | ({"notes": notes} if notes else {}), indent=1))
        return
    replaced = f", {done.replaced:,} replaced" if done.replaced else ""
    far = f", far from the fit (norm ratio {done.norm_ratio:.2f})" if done.far else ""
    click.echo(f"{index}: {counted(done.documents, 'document')} added{replaced}{far}, version {done.manifest.version}")
