"""The characters that the tokens of a document stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gindex.corpus.objectives import Objective
from gindex.corpus.records import Document
from gindex.corpus.tokens import decode_each, tokenize


@dataclass(frozen=True, slots=True)
class TokenText:
    """One token of a part.

    Attributes:
        text: Its characters, and white space that no token stands for before them; of a special token its name.
        context: Whether it is repeated from the part before.
    """

    text: str
    context: bool


def part_texts(tokenizer: Any, document: Document, parts: Sequence[Objective]) -> list[list[TokenText]]:
    """The tokens of every part of a document, in order; those of a part's texts one behind the other.

    Pictures and tensors have none; where pictures stand beside tokens, these are what the tokenizer makes of them.
    """
    if any(part.is_alone for part in parts):
        return [[TokenText(text, False) for text in decode_each(tokenizer, _ids(part))] for part in parts]
    if any(text.content is not None for part in parts for text in part.texts):
        return [[] for _ in parts]
    return _part_texts(tokenizer, document, parts)


def _part_texts(tokenizer: Any, document: Document, parts: Sequence[Objective]) -> list[list[TokenText]]:
    """The tokens of texts.

    Those of a plain text are cut from it. Of other documents, and where another version of the tokenizer cuts
    otherwise, what the tokenizer makes of the tokens has to do.
    """
    contexts = [_context(number, part) for number, part in enumerate(parts)]
    own = [ids[context:] for ids, context in zip(map(_ids, parts), contexts, strict=True)]
    texts = _cut(tokenizer, document.text, [token for ids in own for token in ids])
    if texts is None:
        return [
            [TokenText(text, n < context) for n, text in enumerate(decode_each(tokenizer, _ids(part)))]
            for part, context in zip(parts, contexts, strict=True)
        ]
    found, done = [], 0
    for ids, context in zip(own, contexts, strict=True):
        repeated = [TokenText(text, True) for text in texts[done - context : done]]
        found.append(repeated + [TokenText(text, False) for text in texts[done : done + len(ids)]])
        done += len(ids)
    return found


def _ids(part: Objective) -> list[int]:
    return [int(token) for text in part.texts for token in text.ids]


def _context(number: int, part: Objective) -> int:
    """How many leading tokens do not count in a part that others come before: they are those of the part before."""
    return int(part.texts[0].counted.argmax()) if number else 0


def _cut(tokenizer: Any, text: str, ids: list[int]) -> list[str] | None:
    """The characters of each token of a text; None where it is cut into other tokens."""
    ((found, offsets),) = tokenize(tokenizer, [text])
    if found != ids:
        return None
    texts, done = [], 0
    for token, (start, end) in zip(ids, offsets, strict=True):
        texts.append(text[done : max(done, end)] if end > start else str(tokenizer.convert_ids_to_tokens(token)))
        done = max(done, end)
    return texts
