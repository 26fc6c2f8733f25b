"""The forms of documents: what a record's fields say was trained on, and the checks of each.

Plain text, a prompt with its completion, a conversation, tokens that were prepared elsewhere, a preference of one
answer over another, a text with its label, or words with a label each. A record's form is recognised from its fields,
or said by the settings or the task of the model.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from gindex.config import (
    AUTO,
    COMPLETION,
    LABEL,
    MESSAGES,
    PICTURE,
    PREFERENCE,
    TENSORS,
    TEXT,
    TOKENS,
    WORDS,
    CorpusConfig,
)
from gindex.corpus.contents import Content, tensor_content, tensor_of
from gindex.corpus.message_pictures import PictureReader
from gindex.corpus.messages import parse_completion, parse_messages, parse_pair, parse_tools
from gindex.corpus.objectives import WeightedTokens
from gindex.corpus.pictures import picture_content, picture_name
from gindex.corpus.prepared import read_tokens
from gindex.corpus.value_checks import LARGEST, check_encodable, kind_of
from gindex.errors import CorpusError

_SHOWN_FIELDS = 20

SHARE_GPT_FIELD = "conversations"
"""Field of conversations in ShareGPT's style."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """What a record is made of.

    Attributes:
        name: One of `FORMS`.
        used: Names of the fields that it takes; the others are metadata.
        text: Of plain text, the text; of a labelled one likewise.
        content: Of other forms but tokens, its fields as plain JSON values.
        tokens: Of prepared tokens, these and how much each counts.
        file: Of a picture or tensors, these.
        pictures: Of a conversation, its pictures in order; `OBJECT` stands in the messages for each.
        weight: What its loss is multiplied by.
    """

    name: str
    used: frozenset[str]
    text: str | None = None
    content: dict[str, Any] = field(default_factory=dict)
    tokens: WeightedTokens | None = None
    file: Content | None = None
    pictures: tuple[Content, ...] = ()
    weight: float = 1.0


def read_form(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Form:
    """Recognise and check the form of a record.

    Raises:
        CorpusError: No form's fields are there, or those of several forms; or they do not hold what the form needs.
    """
    name = _recognised(fields, place, config) if config.form == AUTO else config.form
    _check_there(name, fields, place, config)
    return _READERS[name](fields, place, config)


def weight_of(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> float:
    """What a record's loss is multiplied by: 1 where the settings name no field.

    Raises:
        CorpusError: The field is missing, or holds no finite number.
    """
    if config.weight_field is None:
        return 1.0
    value: Any = fields.get(config.weight_field)
    if isinstance(value, str):  # CSV has no numbers
        with suppress(ValueError):
            value = float(value)
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= LARGEST:
        raise CorpusError(
            field=place,
            expected=f"a finite number as weight in the field {config.weight_field!r}",
            found=f"{value!r}"[:80] if config.weight_field in fields else "no such field",
            remedy="correct or remove the record",
        )
    return float(value)


def needed_fields(name: str, config: CorpusConfig) -> tuple[str, ...]:
    """The fields without which a record is not of a form."""
    return {
        TEXT: (config.text_field,),
        COMPLETION: (config.prompt_field, config.completion_field),
        MESSAGES: (config.messages_field,),
        TOKENS: ("input_ids",),
        PREFERENCE: ("chosen", "rejected"),
        LABEL: (config.text_field, *filter(None, [config.pair_field]), label_field(LABEL, config)),
        WORDS: (config.words_field, label_field(WORDS, config)),
        PICTURE: (config.image_field, label_field(PICTURE, config)),
        TENSORS: config.columns,
    }[name]


def label_field(name: str, config: CorpusConfig) -> str:
    """The field of labels of a form."""
    return config.label_field or {LABEL: "label", WORDS: "ner_tags", PICTURE: "label"}[name]


def _recognised(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> str:
    # Beside a preference stand its prompt, and often the conversation that won.
    order = (PREFERENCE, TEXT, MESSAGES, COMPLETION, TOKENS)
    found = [name for name in order if all(_names(fields, n) for n in needed_fields(name, config))]
    if found[:1] == [PREFERENCE]:
        found = [name for name in found if name not in (MESSAGES, COMPLETION)]
    if len(found) == 1:
        return found[0]
    if not found:
        pair = [name for name in ("chosen", "rejected") if name in fields]
        if len(pair) == 1:
            missing = "rejected" if pair == ["chosen"] else "chosen"
            raise CorpusError(
                field=place,
                expected="both sides of a preference",
                found=f"no field {missing!r} beside {pair[0]!r}",
                remedy="add it, or remove the record",
            )
        raise CorpusError(
            field=place,
            expected=f"the text field {config.text_field!r}, or the fields of another form",
            found=f"the fields {_shown(fields)}",
            remedy="name the right one with `text_field`, `prompt_field` and `completion_field`, or `messages_field`",
        )
    raise CorpusError(
        field=place,
        expected="the fields of one form of documents",
        found=f"those of {' and '.join(found)}",
        remedy=f"say with `form` which was trained on: {', '.join(found)}",
    )


def _names(fields: Mapping[str, Any], name: str) -> bool:
    return name in fields or (name == "messages" and SHARE_GPT_FIELD in fields)


def _check_there(name: str, fields: Mapping[str, Any], place: str, config: CorpusConfig) -> None:
    for needed in needed_fields(name, config):
        if not _names(fields, needed):
            what = "the text field" if name == TEXT else f"the field of the form {name},"
            raise CorpusError(
                field=place,
                expected=f"{what} {needed!r}",
                found=f"the fields {_shown(fields)}",
                remedy=f"name the right one with `{_settings_of(name)}`" if _settings_of(name) else "add it",
            )


def _settings_of(name: str) -> str:
    return {
        TEXT: "text_field",
        COMPLETION: "prompt_field` and `completion_field",
        MESSAGES: "messages_field",
        LABEL: "text_field`, `pair_field` and `label_field",
        WORDS: "words_field` and `label_field",
        PICTURE: "image_field` and `label_field",
        TENSORS: "columns",
    }.get(name, "")


def _text(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Form:
    text = fields[config.text_field]
    if not isinstance(text, str):
        raise CorpusError(
            field=place,
            expected=f"a string in the text field {config.text_field!r}",
            found=kind_of(text),
            remedy="correct or remove the record, or name another field with `text_field`",
        )
    if not text.strip():
        raise CorpusError(
            field=place, expected="text", found="an empty or blank one", remedy="remove the record or file"
        )
    check_encodable(text, "text", place)
    return Form(name=TEXT, used=frozenset({config.text_field}), text=text)


def _completion(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Form:
    names = config.prompt_field, config.completion_field
    prompt, completion = (fields[name] for name in names)
    content: dict[str, Any] = {"prompt": prompt, "completion": completion}
    used = set(names)
    pictures: tuple[Content, ...] = ()
    if isinstance(prompt, str) and isinstance(completion, str):
        _check_no_pictures(fields, place, config, "a prompt and a completion that are texts")
        for name, text in zip(names, (prompt, completion), strict=True):
            check_encodable(text, f"text in the field {name!r}", place)
        if not completion:
            raise CorpusError(
                field=place,
                expected=f"a completion in the field {names[1]!r}",
                found="an empty one",
                remedy="remove the record",
            )
    else:
        (prompt, completion), pictures = _with_pictures((prompt, completion), fields, place, config, used)
        conversation = parse_completion(prompt, completion, place)
        turns = list(conversation.messages)
        content = {"prompt": turns[: conversation.prompt_turns], "completion": turns[conversation.prompt_turns :]}
        content |= _tools(fields, place, used)
    return Form(name=COMPLETION, used=frozenset(used), content=content, pictures=pictures)


def _messages(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Form:
    name = config.messages_field if config.messages_field in fields else SHARE_GPT_FIELD
    used = {name}
    (messages,), pictures = _with_pictures((fields[name],), fields, place, config, used)
    content = {"messages": list(parse_messages(messages, f"{place}, field {name!r}"))}
    content |= _tools(fields, place, used)
    return Form(name=MESSAGES, content=content, used=frozenset(used), pictures=pictures)


def _with_pictures(
    conversations: tuple[Any, ...], fields: Mapping[str, Any], place: str, config: CorpusConfig, used: set[str]
) -> tuple[list[Any], tuple[Content, ...]]:
    """Conversations with `OBJECT` in the place of each picture, and the pictures, where the model reads these."""
    if config.images_field is None:
        return list(conversations), ()
    name = _pictures_field(fields, config)
    reader = PictureReader(None if name is None else fields[name], place)
    read = reader.read(*conversations)
    used |= set() if name is None else {name}
    return read, reader.pictures


def _pictures_field(fields: Mapping[str, Any], config: CorpusConfig) -> str | None:
    """The field of a conversation's pictures; None where the model reads none, or a record has none."""
    names = () if config.images_field is None else (config.images_field, config.image_field)
    return next((name for name in names if fields.get(name) is not None), None)


def _check_no_pictures(fields: Mapping[str, Any], place: str, config: CorpusConfig, form: str) -> None:
    name = _pictures_field(fields, config)
    if name is not None and np.size(fields[name]):
        raise CorpusError(
            field=place,
            expected="pictures beside a conversation",
            found=f"the field {name!r} beside {form}",
            remedy="write prompt and completion as messages, or remove the record",
        )


def _tools(fields: Mapping[str, Any], place: str, used: set[str]) -> dict[str, Any]:
    if "tools" not in fields:
        return {}
    used.add("tools")
    tools = parse_tools(fields["tools"], f"{place}, field 'tools'")
    return {} if tools is None else {"tools": tools}


def _preference(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Form:
    prompt, chosen, rejected = (fields.get(name) for name in (config.prompt_field, "chosen", "rejected"))
    used = {"chosen", "rejected"} | ({config.prompt_field} if prompt is not None else set())
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if side is None:
            raise CorpusError(
                field=place,
                expected="both sides of a preference",
                found=f"nothing in {name!r}",
                remedy="add it, or remove the record",
            )
    _check_no_pictures(fields, place, config, "a preference")
    content: dict[str, Any] = {"reference": _reference(fields, place, used)}
    if isinstance(chosen, str) and isinstance(rejected, str) and (prompt is None or isinstance(prompt, str)):
        for name, text in (("prompt", prompt or ""), ("chosen", chosen), ("rejected", rejected)):
            check_encodable(text, f"text in {name!r}", place)
        if chosen == rejected:
            raise CorpusError(
                field=place,
                expected="two sides that differ",
                found="the same text as 'chosen' and 'rejected'",
                remedy="remove the record: its gradient is zero",
            )
        content |= {"prompt": prompt or "", "chosen": chosen, "rejected": rejected}
    else:
        first, second = parse_pair(prompt, chosen, rejected, place)
        shared = first.prompt_turns
        content |= {
            "prompt": list(first.messages[:shared]),
            "chosen": list(first.messages[shared:]),
            "rejected": list(second.messages[shared:]),
        }
        content |= _tools(fields, place, used)
    return Form(name=PREFERENCE, used=frozenset(used), content=content)


def _reference(fields: Mapping[str, Any], place: str, used: set[str]) -> float:
    """How much more likely the chosen side is under the reference model, in nats; 0 without one."""
    names = ("ref_chosen_logp", "ref_rejected_logp")
    there = [name for name in names if fields.get(name) is not None]
    if not there:
        return 0.0
    values = [fields.get(name) for name in names]
    for name, value in zip(names, values, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not isfinite(value):
            raise CorpusError(
                field=place,
                expected=f"a finite number in {name!r}, beside the other side's",
                found="none" if value is None else repr(value)[:80],
                remedy="give both or neither",
            )
    used.update(names)
    return float(values[0]) - float(values[1])  # type: ignore[arg-type]


def _tokens(fields: Mapping[str, Any], place: str, _config: CorpusConfig) -> Form:
    tokens, used = read_tokens(fields, place)
    return Form(name=TOKENS, used=used, tokens=tokens)


def _labelled(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Form:
    """A text, or a pair of them, with its label; which stays among the metadata."""
    names = [config.text_field, *filter(None, [config.pair_field])]
    for name in names:
        _check_text(fields[name], name, place)
    label = _given_label(LABEL, fields, place, config)
    pair = {} if config.pair_field is None else {"pair": fields[config.pair_field]}
    return Form(
        name=LABEL, used=frozenset(names), text=fields[config.text_field], content={**pair, "label": _plain(label)}
    )


def _given_label(form: str, fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Any:
    field = label_field(form, config)
    label = fields[field]
    if label is None or label == "":
        raise CorpusError(field=place, expected=f"a label in the field {field!r}", found="none", remedy="add it")
    return label


def _picture(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Form:
    """A picture with its label, which stays among the metadata."""
    value, label = fields[config.image_field], _given_label(PICTURE, fields, place, config)
    name = picture_name(value)
    content = {"label": _plain(label)} | ({} if name is None else {"file": name})
    return Form(
        name=PICTURE,
        used=frozenset({config.image_field}),
        content=content,
        file=picture_content(value, f"{place}, field {config.image_field!r}"),
    )


def _tensors(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Form:
    """Tensors, each in a field of its own."""
    tensors = {name: tensor_of(fields[name], f"{place}, field {name!r}") for name in config.columns}
    return Form(name=TENSORS, used=frozenset(config.columns), file=tensor_content(tensors))


def _words(fields: Mapping[str, Any], place: str, config: CorpusConfig) -> Form:
    """Words, with a label each; which stay among the metadata."""
    name, field = config.words_field, label_field(WORDS, config)
    words, labels = (_plain(fields[each]) for each in (name, field))
    for given, what in ((words, name), (labels, field)):
        if not isinstance(given, list):
            raise CorpusError(field=place, expected=f"a list in the field {what!r}", found=kind_of(given))
    if len(words) != len(labels) or not words:
        raise CorpusError(
            field=place,
            expected=f"a label in {field!r} for each word of {name!r}, and at least one",
            found=f"{len(labels)} for {len(words)}",
            remedy="correct the record",
        )
    for word in words:
        if not isinstance(word, str):
            raise CorpusError(field=place, expected=f"strings in the field {name!r}", found=kind_of(word))
        check_encodable(word, f"a word in {name!r}", place)
    return Form(name=WORDS, used=frozenset({name}), content={"words": words, "labels": labels})


def _check_text(text: object, name: str, place: str) -> None:
    if not isinstance(text, str) or not text.strip():
        found = "a blank one" if isinstance(text, str) else kind_of(text)
        raise CorpusError(
            field=place, expected=f"a text in the field {name!r}", found=found, remedy="correct or remove the record"
        )
    check_encodable(text, f"text in the field {name!r}", place)


def _plain(value: Any) -> Any:
    """A list in the place of a sequence or an array, whose numbers are Python's; what is read of JSON as it is."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


_READERS: dict[str, Callable[[Mapping[str, Any], str, CorpusConfig], Form]] = {
    TEXT: _text,
    COMPLETION: _completion,
    MESSAGES: _messages,
    TOKENS: _tokens,
    PREFERENCE: _preference,
    LABEL: _labelled,
    WORDS: _words,
    PICTURE: _picture,
    TENSORS: _tensors,
}


def _shown(fields: Mapping[str, Any]) -> str:
    found = ", ".join(map(repr, sorted(fields)[:_SHOWN_FIELDS])) or "none"
    return found + (f" and {len(fields) - _SHOWN_FIELDS} more" if len(fields) > _SHOWN_FIELDS else "")
