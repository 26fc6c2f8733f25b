"""`gindex outliers`."""

from pathlib import Path

import click

from gindex.search_options import SearchOptions

from .command import GindexCommand
from .options import option, setting
from .render import excerpt, json_text


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@setting(SearchOptions, "k", "-k", "--top", group="", help="Parts to print.")
@setting(SearchOptions, "where", group="")
@option("--per-token", is_flag=True, help="Divide by the number of predicted tokens: long parts have more.")
@option("--json", "as_json", is_flag=True, help="Print one JSON object a part.")
def outliers(index: Path, k: int, where: str | None, per_token: bool, as_json: bool) -> None:
    """Print the parts with the largest self-influence: mislabelled, corrupted, foreign or memorised ones.

    Self-influence is the squared norm of a part's whitened gradient. No model is needed.

    \b
    Example:
        gindex outliers runs/corpus -k 20
        gindex outliers runs/corpus --per-token --where "source = 'web'"
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.search.outliers import find_outliers
    from gindex.store.layout import Layout
    from gindex.store.snapshot import Snapshot

    for outlier in find_outliers(Snapshot.open(Layout(index.absolute())), k, where=where, per_token=per_token):
        if as_json:
            click.echo(json_text(vars(outlier)))
        else:
            title = f"{outlier.rank:>3}  self-influence {outlier.self_influence:.4g}  {outlier.tokens} tokens"
            click.echo(f"{title}  {click.style(outlier.document_id, bold=True)}, part {outlier.part}")
            click.echo(f"{excerpt(outlier.text)}\n")
