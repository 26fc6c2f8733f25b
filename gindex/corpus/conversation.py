"""Conversations as tokens, and which of the tokens count in the loss.

The text that the chat template writes is cut into tokens once, as transformers does for training. What counts is what
the assistant says, with the token that ends its turn: the model was trained to say that, too. Headers of turns, and
white space after their ends, do not count.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gindex.config import ALL_TOKENS, ASSISTANT_TURNS, LAST_TURN, LOSSES
from gindex.corpus.chat_template import ChatTemplate, ChatTokenizer
from gindex.corpus.conversation_text import REMEDY, Content, ConversationText, SaidSpan, Span, quoted
from gindex.corpus.messages import Message, assistant_turns, common_beginning
from gindex.corpus.tokens import Offsets, with_offsets
from gindex.errors import ConfigError, CorpusError, QueryError


@dataclass(frozen=True, eq=False)
class EncodedConversation:
    """A conversation as tokens [T].

    Attributes:
        messages: The turns.
        text: What the chat template writes.
        tokens: Token ids [T].
        offsets: Characters [start, end) of the text that each token stands for, white space before it included [T].
        counted: Whether each token counts in the loss [T]; the first never does, since nothing predicts it.
        turns: Tokens [start, end) of each turn, its header included; none for one that the template writes within the
            next, as Llama 2 does with the system's.
        contents: Where the content of each turn stands in the text; None for a turn without.
        notes: What is to be told of how the conversation became tokens.
    """

    messages: tuple[Message, ...]
    text: str
    tokens: list[int]
    offsets: Offsets
    counted: list[bool]
    turns: tuple[Span, ...]
    contents: tuple[Content | None, ...]
    notes: tuple[str, ...] = field(default=())


def encode_conversation(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    *,
    tools: list[dict[str, Any]] | None = None,
    loss: str = ASSISTANT_TURNS,
    turns: Collection[int] | None = None,
    generation_prompt: bool = False,
    place: str = "conversation",
) -> EncodedConversation:
    """Write a conversation by the tokenizer's chat template, cut it into tokens, and say which of them count.

    Args:
        tokenizer: The model's, with a chat template.
        messages: The turns, as `parse_messages` gives them.
        tools: Tools that the assistant may call, as JSON schemas.
        loss: What counts, one of `LOSSES`.
        turns: Numbers, from 0, of the assistant's turns that may count; all by default. With `last-turn` the last of
            them counts, with `all` none can be chosen.
        generation_prompt: Whether the header of an answer ends the text.
        place: What messages of errors call the conversation.

    Raises:
        TokenizerError: The tokenizer has no chat template, or gives no offsets.
        ConfigError: The loss is unknown, or turns are chosen where all tokens count.
        CorpusError: The template refuses the conversation or leaves out a turn; there is no turn that could count; or
            where it begins and ends in the text cannot be told.
    """
    if loss not in LOSSES:
        raise ConfigError(field="loss", expected=f"one of {', '.join(LOSSES)}", found=loss)
    if loss == ALL_TOKENS and turns is not None:
        raise ConfigError(
            field="turns", expected=f"none beside `loss` {ALL_TOKENS!r}", found=sorted(turns), remedy="leave one out"
        )
    template = ChatTemplate(tokenizer, tools)
    chosen = () if loss == ALL_TOKENS else _chosen(messages, loss, turns, place)
    written = ConversationText(template, messages, place=place, generation_prompt=generation_prompt)
    spans = {} if template.marks_generation else {turn: written.said(turn) for turn in chosen}
    headers = [(_header_start(written, turn), span.start) for turn, span in spans.items()]
    encodings = _encode(tokenizer, [written.text, *(written.text[slice(*header)] for header in headers)])
    tokens, offsets = encodings[0][0], covering(written.text, encodings[0][1])
    ends = [end for _, end in offsets]
    encoded = EncodedConversation(
        messages=written.messages,
        text=written.text,
        tokens=tokens,
        offsets=offsets,
        counted=[n > 0 for n in range(len(tokens))],
        turns=tuple((bisect_right(ends, start), bisect_right(ends, end)) for start, end in written.turns),
        contents=written.contents,
        notes=written.notes,
    )
    if loss == ALL_TOKENS:
        return encoded
    if template.marks_generation:
        return _with_marked(encoded, template, chosen, written)
    counted = [False] * len(tokens)
    notes = list(written.notes)
    for (turn, span), (start, _), (header_ids, _) in zip(spans.items(), headers, encodings[1:], strict=True):
        first, is_whole = _first_said(tokenizer, encoded, (start, span.start), header_ids)
        if not is_whole:
            notes.append(_header_note(encoded, first, span, written.name(turn)))
        last = _end_of_said(encoded, span, written.name(turn))
        counted[max(1, first) : last] = [True] * (last - max(1, first))
    return replace(encoded, counted=counted, notes=tuple(notes))


def select_characters(encoded: EncodedConversation, turn: int, start: int, end: int) -> EncodedConversation:
    """The same conversation, of which only the tokens count that hold selected characters of one turn's content.

    A token that holds nothing but white space of the selection counts only where the selection is nothing else.

    Args:
        encoded: The conversation, in which the turn counts.
        turn: Number of the turn, from 0.
        start: First selected character of the turn's content.
        end: Character past the last.

    Raises:
        QueryError: There is no such turn, or nothing selected of it is in the text and counts.
    """
    name = f"turn {turn + 1}"
    if not 0 <= turn < len(encoded.messages):
        raise QueryError(field=name, expected=f"one of {len(encoded.messages)} turns", found="none of them")
    said, content = encoded.messages[turn].get("content", ""), encoded.contents[turn]
    if not 0 <= start < end <= len(said):
        raise QueryError(
            field=f"{name}, span", expected=f"characters within 0:{len(said)}, at least one", found=f"{start}:{end}"
        )
    if content is None or content.skipped is None:
        raise QueryError(
            field=f"{name}, span",
            expected="a turn whose content is in the text as it was given",
            found="one that the chat template writes in another form",
            remedy="choose the whole turn",
        )
    start, end = without_margins(said, start, end)
    shift = content.start - content.skipped
    first, last = max(start + shift, content.start), min(end + shift, content.end)
    counted = [
        is_counted and first < stop and begin < last
        for is_counted, (begin, stop) in zip(encoded.counted, encoded.offsets, strict=True)
    ]
    if not any(counted):
        raise QueryError(
            field=f"{name}, span",
            expected="characters of which a token counts",
            found=f"{quoted(said[start:end])}, which the chat template leaves out or which does not count",
            remedy="choose others",
        )
    return replace(encoded, counted=counted)


def without_margins(text: str, start: int, end: int) -> Span:
    """Selected characters [start, end) of a text without white space around them, unless they are nothing else."""
    selected = text[start:end]
    if not selected.strip():
        return start, end
    start += len(selected) - len(selected.lstrip())
    return start, start + len(selected.strip())


def _chosen(messages: Sequence[Message], loss: str, turns: Collection[int] | None, place: str) -> tuple[int, ...]:
    """Numbers of the turns that count.

    Raises:
        CorpusError: There is none, or one of those asked for is not the assistant's.
    """
    said = assistant_turns(messages)
    for turn in sorted(turns or ()):
        if turn not in said:
            role = messages[turn]["role"] if 0 <= turn < len(messages) else None
            raise CorpusError(
                field=f"{place}, turn {turn + 1}",
                expected="a turn of the assistant, to count in the loss",
                found=f"one of role {role!r}" if role else f"{len(messages)} turns",
            )
    chosen = said if turns is None else tuple(sorted(turns))
    if not chosen:
        roles = ", ".join(dict.fromkeys(repr(message["role"]) for message in messages))
        raise CorpusError(
            field=place,
            expected="a turn of the assistant, to count in the loss",
            found=f"turns of {roles}" if turns is None else "none chosen",
            remedy="add one, or let all tokens count with `loss` 'all'",
        )
    return chosen[-1:] if loss == LAST_TURN else chosen


def _encode(tokenizer: ChatTokenizer, texts: list[str]) -> list[tuple[list[int], Offsets]]:
    encoded = with_offsets(tokenizer, texts, add_special_tokens=False)  # the template writes them itself
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def covering(text: str, offsets: Offsets) -> Offsets:
    """Offsets with the white space before a token, which some tokenizers leave out of them."""
    found: Offsets = []
    before = 0
    for start, end in offsets:
        start, end = max(0, start), max(before, end)
        found.append((before if before < start and text[before:start].isspace() else start, end))
        before = end
    return found


def _header_start(written: ConversationText, turn: int) -> int:
    """Where the turn before begins: tokens are compared from there on, so that long conversations take little time."""
    return written.turns[max(0, turn - 1)][0]


def _first_said(
    tokenizer: ChatTokenizer, encoded: EncodedConversation, header: Span, header_ids: list[int]
) -> tuple[int, bool]:
    """First token that is said, and whether the tokens before it are those of the text before it alone.

    Args:
        tokenizer: The tokenizer.
        encoded: The conversation.
        header: Characters [start, end) of the turn before and the header of this one.
        header_ids: The tokens of these characters alone. Where they are not those within the conversation, the tokens
            of all the text before `end` are compared.
    """
    start, end = header
    before = bisect_left(encoded.offsets, start, key=lambda characters: characters[0])
    first = before + len(header_ids)
    if encoded.tokens[before:first] == header_ids:
        return first, True
    ((beginning, _),) = _encode(tokenizer, [encoded.text[:end]])
    first = common_beginning(encoded.tokens, beginning)
    return first, first == len(beginning)


def _header_note(encoded: EncodedConversation, first: int, span: SaidSpan, name: str) -> str:
    """What is to be told of a token that holds white space of a header and the beginning of what is said.

    Raises:
        CorpusError: It holds more of the header than white space.
    """
    start, end = encoded.offsets[first]
    header = encoded.text[start : span.start]
    if header.strip():
        raise _straddling(encoded, first, name, f"the end of its header, {quoted(header)}")
    return (
        f"the token {quoted(encoded.text[start:end])} holds white space of the header of {name} and the beginning of "
        "what is said, and counts as a whole"
    )


def _end_of_said(encoded: EncodedConversation, span: SaidSpan, name: str) -> int:
    """Token past the last that is said.

    Raises:
        CorpusError: A token holds the end of what is said and the beginning of the next turn.
    """
    last = bisect_left(encoded.offsets, span.end, key=lambda characters: characters[0])
    begin, end = encoded.offsets[last - 1]
    following = encoded.text[span.end : end]
    if not following.strip():
        return last
    if begin >= span.certain_end:
        return last - 1
    raise _straddling(encoded, last - 1, name, f"the beginning of what follows, {quoted(following)}")


def _straddling(encoded: EncodedConversation, token: int, name: str, what: str) -> CorpusError:
    return CorpusError(
        field=name,
        expected="tokens that belong to the turn or to what is around it",
        found=f"the token {quoted(encoded.text[slice(*encoded.offsets[token])])}, which holds {what}, too",
        remedy=REMEDY,
    )


def _with_marked(
    encoded: EncodedConversation, template: ChatTemplate, chosen: Sequence[int], written: ConversationText
) -> EncodedConversation:
    """Count what the template marks as said by the assistant in the turns that are chosen.

    Raises:
        CorpusError: It marks nothing in one of them.
    """
    mask = template.encode_marked(encoded.messages)["assistant_masks"]
    counted = [False] * len(encoded.tokens)
    for turn in chosen:
        start, end = max(1, encoded.turns[turn][0]), encoded.turns[turn][1]
        counted[start:end] = [bool(is_marked) for is_marked in mask[start:end]]
        if not any(counted[start:end]):
            raise CorpusError(
                field=written.name(turn),
                expected="text that the chat template marks by {% generation %}",
                found="none",
                remedy="correct the marks of the template, or give prepared `input_ids` with `labels`",
            )
    return replace(encoded, counted=counted)
