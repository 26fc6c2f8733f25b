"""How figures and hits are shown to a person."""

import textwrap
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gindex.search.hit import Hit, SearchResult

SHOWN_CHARACTERS = 300


def size(count: float) -> str:
    """Write a number of bytes: 1,234,567 is `1.2 MB`."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Write a time: 75 seconds is `1 min 15 s`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def result_text(result: "SearchResult") -> str:
    """Write the answer to one query."""
    query = result.query
    title = f"{query.prompt}{click.style(query.completion, bold=True) if query.completion else ''}"
    lines = [f"{f'[{query.id}] ' if query.id else ''}{title}"]
    for hit in result.hits:
        lines += ["", _hit_title(hit), _excerpt(hit.text)]
    took = result.timing_ms
    rerank = f", re-rank {took.rerank:.0f} ms" if took.rerank >= 0.5 else ""
    lines += ["", f"gradient {took.gradient:.0f} ms, search {took.search:.1f} ms{rerank}"]
    return "\n".join(lines)


def _hit_title(hit: "Hit") -> str:
    influence = "" if hit.influence is None else f"  influence {hit.influence:+.4g}"
    return (
        f"{hit.rank:>3}  score {hit.score:+.4g}{influence}  {click.style(hit.document_id, bold=True)}, part {hit.part}"
    )


def _excerpt(text: str) -> str:
    flat = " ".join(text.split())
    shown = flat if len(flat) <= SHOWN_CHARACTERS else flat[:SHOWN_CHARACTERS].rsplit(" ", 1)[0] + " ..."
    return textwrap.fill(shown, 100, initial_indent="     ", subsequent_indent="     ")
