"""The page of `gindex explain`: one file without scripts or anything loaded from elsewhere."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from gindex.page import html_page

from .query_text import query_text

if TYPE_CHECKING:
    from gindex.exact.explain import Explanation, PartExplanation, TokenInfluence

STYLE = """
summary { font-weight: bold; margin: 2rem 0 .5rem; cursor: pointer }
.query { padding: .5rem .8rem; background: var(--soft); border-left: 4px solid var(--faint); white-space: pre-wrap }
.tokens { white-space: pre-wrap; line-height: 1.9; overflow-wrap: anywhere }
.tokens span { border-radius: 3px; padding: .15em 0 } .tokens .context { opacity: .5 }
.up { background: rgba(var(--positive), var(--share)) } .down { background: rgba(var(--negative), var(--share)) }
table { border-collapse: collapse; width: 100%; font-size: .85rem; line-height: 1.4 }
td { padding: 1px 12px 1px 0; white-space: nowrap } td:last-child { width: 100%; padding-right: 0 }
td:nth-child(2) { text-align: right; font-variant-numeric: tabular-nums }
.track { position: relative; height: 1em } .bar { position: absolute; top: .1em; bottom: .1em; --share: 1 }
.zero { position: absolute; top: -2px; bottom: -2px; width: 1px; background: var(--line) }
.note { color: var(--faint); font-size: .85rem }
"""


def page(explanation: "Explanation") -> str:
    """HTML page of an explanation: a heat map of the tokens, bars of the layers."""
    asked = query_text(explanation.query, escape, lambda said: f"<b>{escape(said)}</b>")
    largest = max((abs(t.influence) for part in explanation.parts for t in part.tokens), default=0.0) or 1.0
    title = f"{explanation.document_id}: influence {_figure(explanation.influence)}"
    body = f"""<h1>{escape(title)}</h1>
<p class="query">{asked}</p>
{"".join(f'<p class="note">{escape(note)}</p>' for note in explanation.notes)}
{"".join(_part(part, largest, len(explanation.parts)) for part in explanation.parts)}
<p class="note">Green: training on what the model reads at this token raises the query's log-likelihood; red: lowers it.
The strongest colour is {_figure(largest).removeprefix("+")}; hold the pointer over a token for its influence.</p>
<h2>Layer groups</h2>{_bars(explanation.groups)}
<details><summary>{len(explanation.layers)} layers</summary>{_bars(explanation.layers)}</details>
<p class="note">Exact EK-FAC influence, not divided by the number of documents. Tokens add up to it, and so do
layers.</p>
"""
    return html_page(title, STYLE, body)


def _part(part: "PartExplanation", largest: float, parts: int) -> str:
    title = f"<h2>Part {part.part}: influence {_figure(part.influence)}</h2>" if parts > 1 else "<h2>Tokens</h2>"
    spans = "".join(_token(token, largest) for token in part.tokens).lstrip()
    said = "of the layers that pictures alone go through, beside the tokens"
    pictures = "" if part.pictures is None else f"<p>Influence {_figure(part.pictures)} {said}.</p>\n"
    return f'{title}<p class="tokens">{spans}</p>\n{pictures}'


def _token(token: "TokenInfluence", largest: float) -> str:
    """HTML of a token, coloured but for white space before it, where there is more than that."""
    text = token.text.lstrip() or token.text
    kind, share = f"{_side(token.influence)}{' context' if token.context else ''}", abs(token.influence) / largest
    return (
        f"{token.text[: len(token.text) - len(text)]}"
        f'<span class="{kind}" title="{_figure(token.influence)}" style="--share: {share:.3f}">{escape(text)}</span>'
    )


def _bars(influence: Mapping[str, float]) -> str:
    """HTML of bars from a common zero, which stands where both ends fit."""
    low, high = min([0.0, *influence.values()]), max([0.0, *influence.values()])
    span = (high - low) or 1.0
    rows = [_bar(name, value, -100 * low / span, 100 * value / span) for name, value in influence.items()]
    return f"<table>{''.join(rows)}</table>"


def _bar(name: str, value: float, zero: float, width: float) -> str:
    return (
        f"<tr><td>{escape(name)}</td><td>{_figure(value)}</td><td><div class=track><div class=zero "
        f'style="left: {zero:.2f}%"></div><div class="bar {_side(value)}" '
        f'style="left: {zero + min(0.0, width):.2f}%; width: {abs(width):.2f}%"></div></div></td></tr>\n'
    )


def _figure(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.3g}"


def _side(influence: float) -> str:
    return "up" if influence > 0 else "down"
