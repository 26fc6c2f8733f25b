"""`gindex index-fields`."""

import json
from pathlib import Path

import click

from .command import GindexCommand
from .options import json_option, option


@click.command("index-fields", cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("fields", metavar="FIELD...", nargs=-1, required=True)
@option("--remove", is_flag=True, help="Look these up by index no longer; off by default.")
@json_option
def index_fields(index: Path, fields: tuple[str, ...], remove: bool, as_json: bool) -> None:
    """Look metadata fields up by index.

    Filters of them then read no documents, and find what they found before. FIELD is written as in --where: year,
    origin.site. No model is needed; later adds keep the index up.

    \b
    Example:
        gindex index-fields runs/corpus year origin.site
        gindex index-fields runs/corpus year --remove
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.index_fields import index_fields as run
    from gindex.store.layout import Layout

    manifest = run(Layout(index), fields, remove=remove)
    indexed = list(manifest.indexed_fields or ())
    if as_json:
        click.echo(json.dumps({"version": manifest.version, "indexed_fields": indexed}, indent=1))
        return
    click.echo(f"{index}: by index {', '.join(indexed) or 'no fields'}, version {manifest.version}")
