"""How a query is shown to a person: its texts, with what counts in them marked."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gindex.queries.query import Query

PAIR = " [and] "
"""What stands between the texts of a pair."""

SHOWN_QUERIES = 5
"""Most queries of a set that are shown."""

Mark = Callable[[str], str]


def query_text(query: "Query", write: Mark, mark: Mark) -> str:
    """Text of a query.

    Args:
        query: The query.
        write: Writes what does not count.
        mark: Writes what counts.
    """
    if query.queries is not None:
        shown = [query_text(each, write, mark) for each in query.queries[:SHOWN_QUERIES]]
        more = [write("...")] if len(query.queries) > SHOWN_QUERIES else []
        return "\n".join([write(f"{query.aggregate} of {len(query.queries)} queries"), *shown, *more])
    if query.document is not None:
        return mark(f"document {query.document}")
    if query.tensors is not None:
        return mark(f"tensors {', '.join(sorted(query.tensors))}")
    if query.image is not None and not query.prompt and query.messages is None:
        return mark("a picture" if query.label is None else f"a picture of {query.label}")
    if query.input_ids is not None:
        return write(f"{len(query.input_ids)} tokens")
    if query.chosen is not None or query.rejected is not None:
        return f"{write(query.prompt)}{mark(_last_said(query.chosen))}\n{write(f'over: {_last_said(query.rejected)}')}"
    if query.messages is not None:
        text = _turns(query, write, mark)
        text = text if query.image is None else f"{write('[a picture]')}\n{text}"
    else:
        text = _prompted(query, write, mark)
    return text if query.contrast is None else f"{text}\n{write(f'rather than: {_last_said(query.contrast)}')}"


def _prompted(query: "Query", write: Mark, mark: Mark) -> str:
    """A prompt with what was said of it."""
    if query.completion is None:
        prompt = write(query.prompt) if query.span is None else _spanned(query.prompt, query.span, write, mark)
    else:
        prompt = write(query.prompt) + _spanned(query.completion, query.span, write, mark)
    pair = "" if query.pair is None else write(f"{PAIR}{query.pair}")
    labels = query.label if isinstance(query.label, (list, tuple)) else [query.label]
    label = "" if query.label is None else mark(f"[{', '.join(map(str, labels))}] ")
    picture = "" if query.image is None else write("[a picture] ")
    return f"{picture}{label}{prompt}{pair}"


def _turns(query: "Query", write: Mark, mark: Mark) -> str:
    messages = query.messages or ()
    asked = (query.turn or len(messages)) - 1
    lines = []
    for number, message in enumerate(messages):
        role, content = str(message.get("role", message.get("from"))), _last_said([message])
        counts = query.loss == "all" or (query.loss == "assistant" and role in ("assistant", "gpt")) or number == asked
        said = _spanned(content, query.span if number == asked else None, write, mark) if counts else write(content)
        lines.append(f"{write(f'{role}: ')}{said}")
    return "\n".join(lines)


def _spanned(text: str, span: tuple[int, int] | None, write: Mark, mark: Mark) -> str:
    if span is None:
        return mark(text) if text else ""
    start, end = span
    return f"{write(text[:start])}{mark(text[start:end])}{write(text[end:])}"


def _last_said(side: object) -> str:
    """A text, or the content of the last of some messages."""
    from gindex.queries.query import contents_of

    if isinstance(side, (list, tuple)):
        return contents_of(side[-1:])
    return "" if side is None else str(side)
