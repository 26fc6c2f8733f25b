"""The text of a conversation, and where in it each turn stands, what the assistant says in it, and its content.

A chat template says nothing of where turns begin and end, so it is asked several times. The text that it writes for the
first turns has to be a beginning of the text for all; what is more in the longer one is the turn. A template that
writes earlier turns in another way than the last (Qwen3 leaves out their thinking) is asked again with a mark in the
place of one turn: the two texts must agree before and after it. Positions are characters of the whole text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gindex.corpus.chat_template import ChatTemplate
from gindex.corpus.contents import OBJECT
from gindex.corpus.messages import Message, common_beginning, tool_names
from gindex.errors import CorpusError

Span = tuple[int, int]
REMEDY = "use a chat template with {% generation %} marks, or prepared `input_ids` with `labels`"
SHOWN_CHARACTERS = 40
"""Most characters of a text that messages quote."""


@dataclass(frozen=True, slots=True)
class Content:
    """Where the content of a turn stands in the text.

    Attributes:
        start: First character.
        end: Character past the last.
        skipped: Characters of the content that are left out before it, most often white space; None where the text is
            no piece of the content, because the template writes it in another form.
    """

    start: int
    end: int
    skipped: int | None


@dataclass(frozen=True, slots=True)
class SaidSpan:
    """Characters that the assistant says in a turn: after its header, with what ends the turn.

    Attributes:
        start: First character.
        certain_end: Character past the last of which it is certain; a token that begins after it and goes on beyond
            `end` is not of the turn.
        end: Character past the last, white space after the end of the turn left out.
    """

    start: int
    certain_end: int
    end: int


@dataclass(frozen=True, slots=True)
class _StandIn:
    """What a mark in the place of a turn shows.

    Attributes:
        start: Where the turn goes on after its header.
        content_end: Where what the mark stands for ends.
        end: Where what ends the turn ends, as an end-of-turn token and white space.
    """

    start: int
    content_end: int
    end: int


class ConversationText:
    """A conversation as its chat template writes it.

    Attributes:
        messages: The turns.
        text: The text.
        turns: Characters [start, end) of each turn, its header included; a turn begins where the one before ends.
        contents: Where the content of each turn stands; None for a turn without, as one that only calls a tool.
        notes: What is to be told of how the template writes the turns.
    """

    def __init__(
        self, template: ChatTemplate, messages: Sequence[Message], *, place: str, generation_prompt: bool = False
    ) -> None:
        """Write a conversation, and find its turns.

        Args:
            template: The template.
            messages: All turns.
            place: What messages of errors call the conversation.
            generation_prompt: Whether the header of an answer ends the text.

        Raises:
            CorpusError: The template refuses the conversation, or leaves out a turn.
        """
        self.messages = tuple(messages)
        self._template, self._place, self._generation_prompt = template, place, generation_prompt
        try:
            self.text = template.render(messages, generation_prompt=generation_prompt)
        except CorpusError as error:
            raise CorpusError(**error.parts() | {"field": f"{place}, {error.field}"}) from error
        self._mark = _unused_character(self.text, messages)
        self._closings = [self._position_after(template.attempt(messages[: i + 1])) for i in range(len(messages) - 1)]
        self._closings.append(self._position_after(template.attempt(messages)) if generation_prompt else len(self.text))
        self.turns = self._turns()
        self.contents = self._contents()
        self.notes = tuple(self._checked())

    def said(self, turn: int) -> SaidSpan:
        """What the assistant says in a turn.

        Raises:
            CorpusError: It cannot be found, because the template writes the beginning of a conversation in another way
                than the whole.
        """
        opening = self._template.attempt(self.messages[:turn], generation_prompt=True)
        start, closing = self._position_after(opening), self._closings[turn]
        # Where there is no generation prompt, a header may follow the opening.
        is_open = start is None or start <= self.turns[turn][0]
        stand_in = self._stand_in(turn) if is_open or closing is None else None
        if is_open:
            start = self._after_header(start, stand_in)
        if closing is None and stand_in is None:
            raise self._unlike(turn, self._template.attempt(self.messages[: turn + 1]))
        end = len(self.text[: stand_in.end if closing is None and stand_in else closing].rstrip())
        if start is None or start >= end:
            raise self._unlike(turn, opening)
        return SaidSpan(start, stand_in.content_end if closing is None and stand_in else end, end)

    def name(self, turn: int) -> str:
        """What messages call a turn: by its number, from 1, and role."""
        return f"{self._place}, turn {turn + 1} ({self.messages[turn]['role']})"

    def _position_after(self, beginning: str | None) -> int | None:
        return len(beginning) if beginning is not None and self.text.startswith(beginning) else None

    def _after_header(self, opening: int | None, stand_in: _StandIn | None) -> int | None:
        """Where what is said begins, of a turn whose opening does not tell; white space before it is said, too."""
        if stand_in is None:
            return None
        is_blank = opening is not None and not self.text[opening : stand_in.start].strip()
        return opening if is_blank else stand_in.start

    def _turns(self) -> tuple[Span, ...]:
        ends = [0]
        for turn, closing in enumerate(self._closings):
            if closing is None and (stand_in := self._stand_in(turn)):
                closing = stand_in.end
            ends.append(max(ends[-1], closing or 0))
        return tuple(pairwise(ends))

    def _stand_in(self, turn: int) -> _StandIn | None:
        """Put a mark in the place of a turn; None where the text then differs before or after it, too."""
        plain = {"role": self.messages[turn]["role"], "content": self._mark}
        first, rest = self.messages[:turn], self.messages[turn + 1 :]
        pieces = self._attempt([*first, plain, *rest]).split(self._mark)
        # White space before content is left out before the call of a tool (Mistral).
        span = self._span_between(pieces) or self._span_between([pieces[0].rstrip(), *pieces[1:]])
        if span is None:
            return None
        # What ends a turn is what is written after it also where nothing follows.
        alone = self._template.attempt([*first, plain]) or ""
        after = self.text[span[1] :]
        ending = after[: common_beginning(after, alone.rpartition(self._mark)[2])]
        return _StandIn(start=span[0], content_end=span[1], end=span[1] + len(ending))

    def _attempt(self, messages: Sequence[Message]) -> str:
        return self._template.attempt(messages, generation_prompt=self._generation_prompt) or ""

    def _span_between(self, pieces: Sequence[str]) -> Span | None:
        """Characters between two pieces of text with which the text begins and ends; None where it does not."""
        if len(pieces) != 2:
            return None
        before, after = pieces
        start, end = len(before), len(self.text) - len(after)
        fits = start < end and self.text.startswith(before) and self.text.endswith(after)
        return (start, end) if fits else None

    def _contents(self) -> tuple[Content | None, ...]:
        """Find contents by marks in the place of all at once, or else of one after the other."""
        turns = [i for i, message in enumerate(self.messages) if message.get("content", "").strip()]
        found = self._all_marked(turns)
        for turn in turns:
            if turn not in found and (content := self._one_marked(turn) or self._verbatim(turn)):
                found[turn] = content
        return tuple(found.get(turn) for turn in range(len(self.messages)))

    def _all_marked(self, turns: Sequence[int]) -> dict[int, Content]:
        """Contents of turns where each is written as it is or stripped; none of them where one is not."""
        marked = [message | {"content": self._mark} if i in turns else message for i, message in self._numbered()]
        before, *others = self._attempt(marked).split(self._mark)
        if len(others) != len(turns) or not self.text.startswith(before):
            return {}
        found, position = {}, len(before)
        for turn, after in zip(turns, others, strict=True):
            content = self.messages[turn]["content"]
            forms = (content, content.strip(), content.rstrip(), content.lstrip())
            written = next((form for form in forms if self.text.startswith(form + after, position)), None)
            if written is None:
                return {}
            found[turn] = Content(position, position + len(written), content.index(written))
            position += len(written) + len(after)
        return found if position == len(self.text) else {}

    def _numbered(self) -> Iterator[tuple[int, Message]]:
        return enumerate(self.messages)

    def _one_marked(self, turn: int) -> Content | None:
        marked = [message | {"content": self._mark} if i == turn else message for i, message in self._numbered()]
        span = self._span_between(self._attempt(marked).split(self._mark))
        if span is None:
            return None
        skipped = self.messages[turn]["content"].find(self.text[slice(*span)])
        return Content(*span, None if skipped < 0 else skipped)

    def _verbatim(self, turn: int) -> Content | None:
        """Content that stands within the turn as it is, where it decides how the template writes the turn."""
        content = self.messages[turn]["content"]
        start = self.text.find(content.strip(), *self._range(turn))
        if start < 0:
            return None
        return Content(start, start + len(content.strip()), content.index(content.strip()))

    def _range(self, turn: int) -> Span:
        """Characters [start, end) within which a turn stands, as far as it is known."""
        stop = next((closing for closing in self._closings[turn:] if closing is not None), len(self.text))
        return self.turns[turn][0], stop

    def _checked(self) -> Iterator[str]:
        """Yield what is to be told of the turns.

        Raises:
            CorpusError: A turn, or the call of a tool, is not in the text.
        """
        for turn, message in self._numbered():
            said, content = message.get("content", ""), self.contents[turn]
            if said.strip() and content is None:
                raise self._left_out(turn, f"content, {quoted(said)}")
            for tool in tool_names(message):
                if tool not in self.text[slice(*self._range(turn))]:
                    raise self._left_out(turn, f"call of the tool {tool!r}")
            if content and not _is_alike(written := self.text[content.start : content.end], said):
                yield f"the chat template writes {quoted(written)} for turn {turn + 1}, {quoted(said)}"
        if self._template.tools:
            without = self._template.without_tools()
            if without.attempt(self.messages, generation_prompt=self._generation_prompt) == self.text:
                yield "the chat template does not write the tools"

    def _left_out(self, turn: int, what: str) -> CorpusError:
        return CorpusError(
            field=self.name(turn),
            expected=f"a chat template that writes the turn's {what}",
            found="one that leaves it out",
            remedy="remove the turn, or use the template that the model was trained with",
        )

    def _unlike(self, turn: int, beginning: str | None) -> CorpusError:
        if beginning is None:
            found = "one that does not take its first turns alone"
        elif self.text.startswith(beginning):
            found = f"one that has no header for the turn, after {quoted(beginning[-SHOWN_CHARACTERS:])}"
        else:
            same = max(0, common_beginning(beginning, self.text) - SHOWN_CHARACTERS // 4)
            found = f"{quoted(beginning[same:])} where the first turns stand alone, {quoted(self.text[same:])} in all"
        return CorpusError(
            field=self.name(turn),
            expected="a chat template that writes the beginning of a conversation as it does in the whole",
            found=found,
            remedy=REMEDY,
        )


def _is_alike(written: str, said: str) -> bool:
    """Whether what is written is what is said; of a turn with pictures its texts, as templates move and frame these."""
    if OBJECT not in said:
        return written.strip() == said.strip()
    return all(text.strip() in written for text in said.split(OBJECT))


def quoted(text: str) -> str:
    """The beginning of a text, for messages."""
    return repr(text) if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]!r}..."


def _unused_character(text: str, messages: Sequence[Message]) -> str:
    """A character for private use that is not in the conversation: no template knows, strips or changes it."""
    used = text + "".join(message.get("content", "") for message in messages)
    return next(mark for mark in map(chr, range(0xE000, 0xF900)) if mark not in used)
