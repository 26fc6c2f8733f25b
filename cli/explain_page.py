"""The page of `gindex explain`: one file without scripts or anything loaded from elsewhere."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gindex.search.explain import Explanation, PartExplanation

STYLE = """
body { font: 16px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328;
       background: #fff }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin: 2rem 0 .5rem }
.query { padding: .5rem .8rem; background: #f6f8fa; border-left: 4px solid #59636e; white-space: pre-wrap }
.tokens { white-space: pre-wrap; line-height: 2; overflow-wrap: anywhere }
.tokens span { border-radius: 3px; padding: .1em 0 } .tokens .context { opacity: .5 }
table { border-collapse: collapse; width: 100% } td { padding: 1px 8px 1px 0; white-space: nowrap }
td:nth-child(2) { text-align: right; font-variant-numeric: tabular-nums } td:last-child { width: 100% }
.track { position: relative; height: 1em; background: linear-gradient(#d0d7de, #d0d7de) 50%/1px 100% no-repeat }
.bar { position: absolute; top: .1em; bottom: .1em } .note { color: #59636e; font-size: .85rem }
"""
POSITIVE, NEGATIVE = "46, 160, 67", "218, 54, 51"


def page(explanation: "Explanation") -> str:
    """Return an explanation as an HTML page: a heat map of the tokens, bars of the layers."""
    query = explanation.query
    completion = f"<b>{escape(query.completion)}</b>" if query.completion else ""
    largest = max((abs(t.influence) for part in explanation.parts for t in part.tokens), default=0.0) or 1.0
    title = escape(explanation.document_id)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}: influence {explanation.influence:+.4g}</title><style>{STYLE}</style></head><body>
<h1>{title}: influence {explanation.influence:+.4g}</h1>
<p class="query">{escape(query.prompt)}{completion}</p>
{"".join(_part(part, largest, len(explanation.parts)) for part in explanation.parts)}
<p class="note">Green: training on what the model reads at this token raises the query's log-likelihood; red: lowers it.
The strongest colour is {largest:.4g}; hold the pointer over a token for its influence.</p>
<h2>Layer groups</h2>{_bars(explanation.groups)}
<h2>Layers</h2>{_bars(explanation.layers)}
<p class="note">Exact EK-FAC influence, not divided by the number of documents. Tokens add up to it, and so do
layers.</p>
</body></html>
"""


def _part(part: "PartExplanation", largest: float, parts: int) -> str:
    title = f"<h2>Part {part.part}: influence {part.influence:+.4g}</h2>" if parts > 1 else "<h2>Tokens</h2>"
    spans = "".join(
        f'<span{" class=context" if token.context else ""} title="{token.influence:+.4g}" '
        f'style="background: rgba({_colour(token.influence)}, {abs(token.influence) / largest:.3f})">'
        f"{escape(token.text)}</span>"
        for token in part.tokens
    )
    return f'{title}<p class="tokens">{spans}</p>\n'


def _bars(influence: Mapping[str, float]) -> str:
    largest = max((abs(value) for value in influence.values()), default=0.0) or 1.0
    return (
        f"<table>{''.join(_bar(name, value, 50 * abs(value) / largest) for name, value in influence.items())}</table>"
    )


def _bar(name: str, value: float, width: float) -> str:
    left = 50 if value > 0 else 50 - width
    return (
        f"<tr><td>{escape(name)}</td><td>{value:+.4g}</td><td><div class=track><div class=bar "
        f'style="left: {left:.2f}%; width: {width:.2f}%; background: rgb({_colour(value)})"></div></div></td></tr>\n'
    )


def _colour(influence: float) -> str:
    return POSITIVE if influence > 0 else NEGATIVE
