"""`gindex add`."""

import json
from pathlib import Path

import click

from gindex.config import BuildConfig, CorpusConfig, ModelConfig, default_of, help_of

from .command import GindexCommand, permission_options, permissions
from .progress import terminal_progress
from .render import counted
from .reports import corpus_notes


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("corpus", nargs=-1, required=True)
@click.option("--replace", is_flag=True, help="Delete documents of INDEX that have the id of a new one.")
@click.option("--text-field", help=f"{help_of(CorpusConfig, 'text_field')} That of the build if not given.")
@click.option("--id-field", help=f"{help_of(CorpusConfig, 'id_field')} That of the build if not given.")
@click.option("--model", help="Folder or hub name of the model, where it has moved since the build.")
@click.option(
    "--device", default=default_of(ModelConfig, "device"), show_default=True, help=help_of(ModelConfig, "device")
)
@permission_options
@click.option(
    "--batch-tokens",
    type=click.IntRange(min=0),
    default=default_of(BuildConfig, "batch_tokens"),
    show_default=True,
    help=help_of(BuildConfig, "batch_tokens"),
)
@click.option("--strict", is_flag=True, help="Stop at a document whose gradient is not finite, not pass over it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def add(
    index: Path,
    corpus: tuple[str, ...],
    replace: bool,
    text_field: str | None,
    id_field: str | None,
    model: str | None,
    device: str,
    batch_tokens: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Add the documents of CORPUS to INDEX, with its factors and its projection.

    An add that was interrupted goes on when the same command is given again. A warning says when the new text is far
    from what the factors were fitted on: its scores are then less to be trusted, and a new build is better.

    \b
    Example:
        gindex add runs/corpus more.jsonl
        gindex add runs/corpus corrected.jsonl --replace
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.index import GradientIndex

    opened = GradientIndex.open(index, model=model, device=device, **permissions())
    with corpus_notes() as notes:
        done = opened.add(
            corpus,
            replace=replace,
            text_field=text_field,
            id_field=id_field,
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
