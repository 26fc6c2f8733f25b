"""`gindex explain`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gindex.search_options import OUTPUT, SearchOptions

from .command import GindexCommand
from .early_checks import check_asked
from .options import base_option, device_option, json_option, model_option, opening, option, permission_options, setting
from .progress import terminal_progress
from .query_options import check_one_asked, made_query, query_options
from .render import json_text, notes_text, query_title

if TYPE_CHECKING:
    from gindex.exact.explain import Explanation

BAR_WIDTH = 40
POSITIVE, NEGATIVE = (46, 160, 67), (218, 54, 51)
FAINT = 0.08
"""Share of the largest influence below which a token keeps the terminal's own colours."""


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("document_id")
@click.argument("prompt", required=False)
@query_options
@setting(SearchOptions, "long_queries")
@option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    group=OUTPUT,
    help="File to write a page to that needs no other.",
)
@json_option
@model_option
@base_option
@device_option
@permission_options
def explain(
    index: Path,
    document_id: str,
    prompt: str | None,
    long_queries: str,
    html: Path | None,
    model: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Print which tokens and layers of a document have influence on a query.

    The document is DOCUMENT_ID of INDEX, the query is PROMPT. Influence is recomputed exactly, without projection, and
    is the sum over the tokens as well as over the layers. A token's share is what comes of reading it, its effect on
    later predictions included.

    \b
    Example:
        gindex explain runs/corpus compiler "A compiler is" --completion " a program"
        gindex explain runs/corpus compiler "A compiler is" --completion " a program" --html compiler.html
        gindex explain runs/corpus compiler "A compiler is" --completion " a program" --contrast " a person"
        gindex explain runs/corpus compiler --messages conversation.json
    """  # noqa: D301 \b keeps click from wrapping the lines
    check_one_asked(prompt, given, named="PROMPT, --messages, --image and --document")
    query = made_query(prompt, given)
    check_asked(index, document_id=document_id)

    from gindex.exact.explain import explanation_record
    from gindex.index import GradientIndex

    from .explain_page import page

    opened = GradientIndex.open(index, model=model, device=device, **opening())
    explanation = opened.explain(document_id, query, long_queries=long_queries, progress=terminal_progress())
    if html is not None:
        html.write_text(page(explanation), encoding="utf-8")
    if as_json:
        click.echo(json_text(explanation_record(explanation)))
    elif html is not None:
        click.echo(f"{html}: influence {explanation.influence:+.4g}")
    else:
        click.echo(_text(explanation))


def _text(explanation: "Explanation") -> str:
    from gindex.exact.explain import shades

    lines = [query_title(explanation.query), *notes_text(explanation.notes), ""]
    lines.append(f"influence {explanation.influence:+.4g}  {click.style(explanation.document_id, bold=True)}")
    tokens = [token for part in explanation.parts for token in part.tokens if not token.context]
    shaded = zip(tokens, shades([token.influence for token in tokens]), strict=True)
    lines += ["", "".join(_coloured(token.text, shade) for token, shade in shaded), ""]
    pictures = [part.pictures for part in explanation.parts if part.pictures is not None]
    if pictures:
        lines += [f"pictures {sum(pictures):+.4g}: of the layers that they alone go through, beside the tokens", ""]
    for name, value, share in zip(
        explanation.groups, explanation.groups.values(), shades(list(explanation.groups.values())), strict=True
    ):
        bar = click.style("█" * round(abs(share) * BAR_WIDTH), fg=POSITIVE if share > 0 else NEGATIVE)
        lines.append(f"{name:<24} {value:>+11.4g}  {bar}")
    return "\n".join(lines)


def _coloured(text: str, shade: float) -> str:
    if abs(shade) < FAINT:
        return text
    strong = POSITIVE if shade > 0 else NEGATIVE
    red, green, blue = (round(30 + (part - 30) * abs(shade)) for part in strong)
    return click.style(text, bg=(red, green, blue), fg=(255, 255, 255))
