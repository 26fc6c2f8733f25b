"""A prompt and its completion as the model reads them: one text, cut into tokens once.

What the model is given when it goes on from a prompt is one text with one beginning. So both are cut as a document is,
and the tokens that hold characters of the completion count. What that leaves to be told (a token that holds characters
of both, a prompt that was cut) is in the notes.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.corpus.conversation import covering, without_margins
from gindex.corpus.objectives import WeightedTokens
from gindex.corpus.tokens import Encoding, Tokenizer, encode_texts
from gindex.errors import QueryError
from gindex.queries.counted_text import CountedText, TokenLimit, quoted

Counted = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """A prompt, and the completion whose tokens count; of a prompt alone all do.

    Attributes:
        prompt: The text before the completion.
        completion: The completion.
        span: First character, and that past the last, of the completion, whose tokens alone count.
        name: What messages of errors call the query.
    """

    prompt: str
    completion: str | None
    span: tuple[int, int] | None = None
    name: str = "query"

    @property
    def text(self) -> str:
        """What the model reads: the completion goes on where the prompt ends."""
        return self.prompt + (self.completion or "")


def encode_completion(tokenizer: Tokenizer, asked: Prompted, limit: TokenLimit) -> CountedText:
    """Cut a prompt and its completion into tokens.

    The first token that counts is the first that holds a character of the completion; of a prompt alone, the first
    after the text's beginning. What the tokenizer adds at the end of a text is left out: that the text ends there is
    not what the model said. So is what follows the last token that counts, which no loss depends on.

    Raises:
        QueryError: It has nothing to predict, too many tokens, or is not Unicode text; no token of the span counts.
    """
    _check_text(asked)
    (encoding,) = encode_texts(tokenizer, [asked.text])
    end = len(encoding.tokens) - encoding.after
    first = _first_counted(asked, encoding, end)
    counted = np.arange(end) >= max(1, first)
    if not counted.any():
        raise QueryError(
            field=asked.name,
            expected="a token to predict after the first",
            found=f"{end} in all",
            remedy="give a longer prompt",
        )
    if asked.span is not None:
        counted &= _holding(asked, asked.span, encoding)[:end]
        if not counted.any():
            raise _nothing_selected(asked, asked.span)
    is_begun = asked.completion is not None and (asked.span is None or counted[first])
    notes = _boundary_notes(asked, encoding, first) if is_begun else []
    end = int(np.flatnonzero(counted)[-1]) + 1
    text = WeightedTokens(np.array(encoding.tokens[:end], np.uint32), counted[:end].astype(np.float32))
    if end <= limit.most:
        return CountedText(text, tuple(notes))
    if not limit.cuts:
        raise QueryError(field=asked.name, expected=f"at most {limit.text}", found=end, remedy="shorten it")
    text, note = _shortened(asked, encoding, text, max(1, first), limit)
    return CountedText(text, (*notes, note))


def _check_text(asked: Prompted) -> None:
    for part in (asked.prompt, asked.completion or ""):
        if not _is_unicode(part):
            raise QueryError(
                field=asked.name, expected="Unicode text", found="half a surrogate pair", remedy="correct it"
            )


def _first_counted(asked: Prompted, encoding: Encoding, end: int) -> int:
    """Position of the first token that holds a character of the completion; of a prompt alone, the first of the text.

    Raises:
        QueryError: The completion has no token.
    """
    first = min(encoding.before, end)
    if asked.completion is not None and asked.prompt:
        first = next((n for n in range(first, end) if encoding.offsets[n][1] > len(asked.prompt)), end)
    if first == end and asked.completion is not None:
        raise QueryError(
            field=asked.name,
            expected="a completion with at least one token",
            found="none",
            remedy="leave it out or fill it",
        )
    return first


def _holding(asked: Prompted, span: tuple[int, int], encoding: Encoding) -> Counted:
    """Which tokens hold characters of the span [T].

    Raises:
        QueryError: The span is not within the completion, or empty.
    """
    completion, shift = asked.completion or "", len(asked.prompt)
    if not 0 <= span[0] < span[1] <= len(completion):
        raise QueryError(
            field=f"{asked.name}, span",
            expected=f"characters within 0:{len(completion)}, at least one",
            found=f"{span[0]}:{span[1]}",
        )
    start, end = without_margins(completion, *span)
    held = covering(asked.text, encoding.offsets)
    return np.array([begin < end + shift and start + shift < stop for begin, stop in held], np.bool_)


def _nothing_selected(asked: Prompted, span: tuple[int, int]) -> QueryError:
    return QueryError(
        field=f"{asked.name}, span",
        expected="characters of which a token counts",
        found=quoted((asked.completion or "")[slice(*span)]),
        remedy="choose others",
    )


def _boundary_notes(asked: Prompted, encoding: Encoding, first: int) -> list[str]:
    """What is to be told of where the completion begins.

    White space that no offset covers belongs to the token after it: byte-level tokenizers may leave it out of offsets.
    """
    prompt, completion = asked.prompt, asked.completion or ""
    text, boundary = asked.text, len(prompt)
    start, end = encoding.offsets[first]
    covered = max((stop for _, stop in encoding.offsets[:first]), default=0)
    while start > covered and text[start - 1].isspace():
        start -= 1
    notes = []
    if start < boundary:
        move = "; move it to the completion if the model said it" if prompt[start:].isspace() else ""
        notes.append(
            f"the token {quoted(text[start:end])} holds the end of the prompt, {quoted(prompt[start:])}, and the "
            f"beginning of the completion, and counts as a whole{move}"
        )
    if _is_lettered(prompt[-1:]) and _is_lettered(completion[:1]):
        notes.append(
            f"the completion goes on without a space, as in {quoted(text[max(0, boundary - 10) : boundary + 10])}; "
            "begin it with one if one is meant"
        )
    if first == 0:
        notes.append(
            f"the token {quoted(text[start:end])} does not count: the completion begins with it, and neither a prompt "
            "nor a beginning that the tokenizer adds is there to predict it"
        )
    return notes


def _is_lettered(character: str) -> bool:
    """Whether a character is a digit, or a letter of a script with two cases: those put spaces between words."""
    return character.isdecimal() or character.lower() != character.upper()


def _shortened(
    asked: Prompted, encoding: Encoding, text: WeightedTokens, first: int, limit: TokenLimit
) -> tuple[WeightedTokens, str]:
    """Leave out the first tokens after the text's beginning; return the others and a note.

    Raises:
        QueryError: The completion, from its token `first` on, alone has too many.
    """
    before, end = encoding.before, len(text)
    beginning = max(1, before)
    if asked.completion is not None and end - first > limit.most - beginning:
        raise QueryError(
            field=asked.name,
            expected=f"at most {limit.text}, {beginning} of them before the completion",
            found=f"{end - first} in the completion",
            remedy="shorten it",
        )
    left_out = end - limit.most
    kept = np.r_[0:before, before + left_out : end]
    weights = text.weights[kept]
    weights[0] = 0
    rest = asked.text[encoding.offsets[before + left_out][0] :]
    note = (
        f"of {end} tokens the first {left_out} are left out{'' if asked.completion else ' and do not count'}"
        f", to keep {limit.text}; what is left of the prompt begins with {quoted(rest)}"
    )
    return WeightedTokens(text.ids[kept], weights), note


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
