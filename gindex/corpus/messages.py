"""Conversations as records have them: lists of messages, in the two styles in use, and every check on them.

OpenAI's style has `role` and `content`, ShareGPT's `from` and `value`. Messages beyond this module have the first, with
the content as one string. Turns are numbered from 1 in what is said to people, and from 0 in code.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gindex.errors import CorpusError

Message = dict[str, Any]
"""One turn: `role`, `content` (a string, left out where there is none), and what else the chat template reads."""

ASSISTANT, TOOL = "assistant", "tool"
_SHARE_GPT = {"human": "user", "gpt": ASSISTANT}
"""Roles of ShareGPT's style that have another name in OpenAI's; others keep theirs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Messages, and from which one on the assistant's turns count.

    Attributes:
        messages: All turns, the prompt's first.
        prompt_turns: How many turns are the prompt, none of which counts.
    """

    messages: tuple[Message, ...]
    prompt_turns: int = 0

    @property
    def assistant_turns(self) -> tuple[int, ...]:
        """Numbers, from 0, of the assistant's turns after the prompt."""
        return tuple(i for i in assistant_turns(self.messages) if i >= self.prompt_turns)


def parse_messages(value: object, field: str) -> tuple[Message, ...]:
    """Messages of a record, checked, in OpenAI's style.

    Roles that are not known are left to the chat template. Fields that are null are left out, as transformers does;
    texts of a content in pieces are put together; tool calls that are written as JSON text are read.

    Args:
        value: A list of messages, or the same as JSON text.
        field: Where it stands, for messages of errors.

    Raises:
        CorpusError: It is no list, or empty; a turn has no role or no text, or content of another kind than text; an
            assistant's turn is empty and calls no tool.
    """
    messages = parse_json(value, field) if isinstance(value, str) else value
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise CorpusError(field=field, expected="a list of messages", found=_kind(messages), remedy=_STYLES)
    if not messages:
        raise CorpusError(field=field, expected="at least one message", found="none", remedy="remove the record")
    return tuple(_message(message, f"{field}, turn {number}") for number, message in enumerate(messages, 1))


_STYLES = 'write a list of {"role": ..., "content": ...} or {"from": ..., "value": ...}'


def assistant_turns(messages: Sequence[Message]) -> tuple[int, ...]:
    """Numbers, from 0, of the assistant's turns."""
    return tuple(i for i, message in enumerate(messages) if message["role"] == ASSISTANT)


def parse_completion(prompt: object, completion: object, field: str) -> Conversation:
    """Conversation of a prompt and a completion that are lists of messages; the completion's assistant turns count.

    Raises:
        CorpusError: One of the two is no list of messages, or the completion has no turn of the assistant.
    """
    head, tail = parse_messages(prompt, f"{field}, prompt"), parse_messages(completion, f"{field}, completion")
    return _with_answer(Conversation(messages=head + tail, prompt_turns=len(head)), f"{field}, completion")


def parse_pair(prompt: object, chosen: object, rejected: object, field: str) -> tuple[Conversation, Conversation]:
    """Conversations of a preference pair: the chosen and the rejected one.

    Args:
        prompt: Messages with which both begin, a text of the user, or None: then the prompt is the turns with which
            both begin. Sides that begin with the prompt are not given it twice.
        chosen: Messages of the preferred side.
        rejected: Messages of the other side.
        field: Where they stand, for messages of errors.

    Raises:
        CorpusError: A side is missing or no list of messages, both are equal, or one has no turn of the assistant.
    """
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if side is None:
            raise CorpusError(
                field=field, expected="both sides of a pair", found=f"no {name!r}", remedy="add it or remove the record"
            )
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    sides = [parse_messages(side, f"{field}, {name}") for name, side in (("chosen", chosen), ("rejected", rejected))]
    head = () if prompt is None else parse_messages(prompt, f"{field}, prompt")
    if not all(side[: len(head)] == head for side in sides):
        sides = [head + side for side in sides]
    first, second = sides
    if first == second:
        raise CorpusError(
            field=field,
            expected="two sides that differ",
            found="the same messages as 'chosen' and 'rejected'",
            remedy="remove the record: its gradient is zero",
        )
    shared = len(head) or common_beginning(first, second)
    return (
        _with_answer(Conversation(messages=first, prompt_turns=shared), f"{field}, chosen"),
        _with_answer(Conversation(messages=second, prompt_turns=shared), f"{field}, rejected"),
    )


def parse_tools(value: object, field: str) -> list[dict[str, Any]] | None:
    """Tools that a conversation may call, as JSON schemas; JSON text is read.

    Raises:
        CorpusError: They are no list of objects.
    """
    tools = parse_json(value, field) if isinstance(value, str) else value
    if tools is None:
        return None
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise CorpusError(field=field, expected="a list of tools", found=_kind(tools))
    for number, tool in enumerate(tools, 1):
        if not isinstance(tool, Mapping):
            raise CorpusError(field=f"{field}, tool {number}", expected="an object", found=_kind(tool))
    return [dict(tool) for tool in tools] or None


def parse_json(text: str, field: str) -> Any:
    """Value that a field holds as JSON text.

    Raises:
        CorpusError: It is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorpusError(field=field, expected="a list, or one as JSON text", found=f"other text ({error})") from error


def tool_names(message: Message) -> list[str]:
    """Names of the tools that a turn calls."""
    return [str((call.get("function") or call).get("name")) for call in message.get("tool_calls", ())]


def common_beginning(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many items two sequences begin with in common."""
    shortest = min(len(first), len(second))
    if first[:shortest] == second[:shortest]:
        return shortest
    return next(i for i in range(shortest) if first[i] != second[i])


def _message(value: object, field: str) -> Message:
    if not isinstance(value, Mapping):
        raise CorpusError(field=field, expected="a message, which is an object", found=_kind(value), remedy=_STYLES)
    message = {str(name): item for name, item in value.items() if item is not None}
    if "role" not in message and "from" in message:
        role = message.pop("from")
        content = message.pop("value", None)
        message = {"role": _SHARE_GPT.get(role, role) if isinstance(role, str) else role, **message}
        message |= {} if content is None else {"content": content}
    if not isinstance(message.get("role"), str) or not message["role"]:
        found = "none" if "role" not in message else _kind(message["role"])
        raise CorpusError(field=field, expected="a role, which is a text", found=found, remedy=_STYLES)
    field = f"{field} ({message['role']})"
    if "tool_calls" in message:
        message["tool_calls"] = _tool_calls(message["tool_calls"], field)
        if not message["tool_calls"]:
            del message["tool_calls"]
    if "content" in message:
        message["content"] = _text(message["content"], field)
    _check_said(message, field)
    _check_json(message, field)
    return message


def _text(content: object, field: str) -> str:
    """Content as one string: pieces of text are put together as they are."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise CorpusError(field=field, expected="content that is text or a list of pieces", found=_kind(content))
    return "".join(_piece(piece, f"{field}, piece {number}") for number, piece in enumerate(content, 1))


def _piece(piece: object, field: str) -> str:
    text = piece.get("text") if isinstance(piece, Mapping) else None
    if not isinstance(piece, Mapping) or piece.get("type", "text") != "text" or not isinstance(text, str):
        kind = f"one of type {piece['type']!r}" if isinstance(piece, Mapping) and "type" in piece else _kind(piece)
        raise CorpusError(
            field=field,
            expected='text, as {"type": "text", "text": ...}',
            found=kind,
            remedy="leave the record out, or give a model that reads pictures; see docs/tasks.md",
        )
    return text


def _tool_calls(value: object, field: str) -> list[dict[str, Any]]:
    calls = parse_json(value, f"{field}, tool_calls") if isinstance(value, str) else value
    if not isinstance(calls, Sequence) or not all(isinstance(call, Mapping) for call in calls):
        raise CorpusError(field=f"{field}, tool_calls", expected="a list of objects", found=_kind(calls))
    for number, call in enumerate(calls, 1):
        function = call.get("function", call)
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise CorpusError(
                field=f"{field}, tool call {number}",
                expected='a function with its name, as {"function": {"name": ..., "arguments": ...}}',
                found="none",
            )
    return [dict(call) for call in calls]


def _check_said(message: Message, field: str) -> None:
    """Check that a turn has content, and the assistant's some that is not blank, or calls a tool."""
    if "tool_calls" in message:
        return
    if "content" not in message:
        raise CorpusError(field=field, expected="content", found="none", remedy="fill or remove the turn")
    if message["role"] == ASSISTANT and not message["content"].strip():
        raise CorpusError(
            field=field,
            expected="text, or a call of a tool",
            found="an empty turn" if not message["content"] else "a blank turn",
            remedy="fill or remove the turn: there is nothing that the model was trained to say",
        )


def _check_json(message: Message, field: str) -> None:
    try:
        json.dumps(message, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            field=field, expected="text of Unicode characters", found="half a surrogate pair", remedy="correct it"
        ) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise CorpusError(field=field, expected="a message of JSON values", found=str(error)) from error


def _with_answer(conversation: Conversation, field: str) -> Conversation:
    if not conversation.assistant_turns:
        raise CorpusError(
            field=field,
            expected="a turn of the assistant after the prompt",
            found="none",
            remedy="add what the model was trained to say, or remove the record",
        )
    return conversation


def _kind(value: object) -> str:
    names = {"NoneType": "null", "dict": "an object", "list": "a list", "str": "a text", "bool": "a boolean"}
    name = type(value).__name__
    return names.get(name, f"a value of type {name}")
