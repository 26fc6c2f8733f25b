"""A query, and one that has no answer."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from gindex.corpus.messages import Message
from gindex.errors import ConfigError, GindexError

OTHER_FORMS = frozenset({"document", "tensors", "image", "messages", "input_ids", "chosen", "rejected", "queries"})
"""Fields that no prompt with its completion has."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a model said, or might say: a weighted sum of the losses of tokens of one or more texts.

    It has one of five forms: a `prompt`, most often with its `completion`; `messages`; `input_ids`; a preference of
    `chosen` over `rejected`; or a set of `queries`.

    Attributes:
        prompt: Text before the completion; alone, all of it counts.
        completion: Text that goes on where the prompt ends: only its tokens count.
        messages: Conversation, as OpenAI has it, which the model's chat template writes.
        tools: Tools that the conversation may call, as JSON schemas.
        loss: Tokens of the conversation that count: what the assistant says last, in all its turns (`assistant`), or
            all tokens (`all`).
        turn: Number of the assistant's turn that counts, from 1 for the first message, in the place of its last.
        input_ids: Tokens that were prepared elsewhere, special ones included.
        labels: Label of each token of `input_ids`: -100 where it does not count, else the token itself.
        loss_mask: 1 for each token of `input_ids` that counts, 0 for each other.
        loss_weights: What the loss of each token of `input_ids` is multiplied by.
        chosen: Side of a preference that is preferred: a text after `prompt`, or messages.
        rejected: Other side of the preference.
        ref_chosen_logp: Log-probability of `chosen` under the reference model, in nats.
        ref_rejected_logp: The same of `rejected`.
        beta: Beta of the preference's DPO loss; 0.1 by default.
        label: What a classifier said of `prompt`: a label by name or number, of several classes or values a list; of
            words one for each, or for those of the span. By default it is what the model says.
        pair: Second text, where a classifier reads two.
        image: Picture, where the model reads pictures: the bytes or the path of its file, a picture of Pillow, or an
            array [height, width, channels] of uint8; in JSON the bytes in base64. Beside a prompt or messages, where a
            language model reads it. Messages may also hold pictures, as `{"type": "image", "image": ...}`.
        tensors: Tensors by name, where the task is a function of one's own: numbers, nested lists of them, or arrays.
        document: Id of a document of the index that is asked in its place, with its own label or completion.
        contrast: What the model might have said instead: a text in the place of the completion or of the turn's
            content, or a whole other conversation. Influence is then that on log p of the one less log p of the other.
        span: First character, and that past the last, of the completion or of the turn's content, if the tokens of
            these characters alone are to count. For models that fill in masks, or label words, of `prompt`.
        queries: Queries that are asked as one; neither sets nor preferences.
        aggregate: How they become one, by `mean` or `sum`; the mean is that weighted by each one's `weight`.
        weight: What the loss is multiplied by, which may be negative.
        id: Given back with the answer.
    """

    prompt: str = ""
    completion: str | None = None
    messages: Sequence[Message] | None = None
    tools: Sequence[dict[str, Any]] | None = None
    loss: str | None = None
    turn: int | None = None
    input_ids: Sequence[int] | None = None
    labels: Sequence[int] | None = None
    loss_mask: Sequence[int] | None = None
    loss_weights: Sequence[float] | None = None
    chosen: str | Sequence[Message] | None = None
    rejected: str | Sequence[Message] | None = None
    ref_chosen_logp: float | None = None
    ref_rejected_logp: float | None = None
    beta: float | None = None
    label: str | float | Sequence[str | float] | None = None
    pair: str | None = None
    image: Any = None
    tensors: dict[str, Any] | None = None
    document: str | None = None
    contrast: str | Sequence[Message] | None = None
    span: tuple[int, int] | None = None
    queries: "Sequence[Query] | None" = None
    aggregate: str | None = None
    weight: float = 1.0
    id: str | None = None

    @property
    def text(self) -> str:
        """What is asked about, without what a chat template adds; empty for tokens, which a tokenizer has to read.

        The completion goes on where the prompt ends; contents of messages, and queries of a set, are lines.
        """
        if self.queries is not None:
            return "\n".join(query.text for query in self.queries)
        if self.messages is not None:
            return contents_of(self.messages)
        if isinstance(self.chosen, str):
            return self.prompt + self.chosen
        if self.chosen is not None:
            return contents_of(self.chosen)
        return self.prompt + (self.pair or "") + (self.completion or "")

    @property
    def text_count(self) -> int:
        """Number of texts that the model reads for it."""
        if self.queries is not None:
            return sum(query.text_count for query in self.queries)
        return 1 + (self.contrast is not None) + (self.rejected is not None)


@dataclass(frozen=True, kw_only=True)
class FailedQuery:
    """One of many queries that has no answer, in the place of its result: the query, and the error that it would raise.

    The other queries are answered.
    """

    query: Query
    error: GindexError


def given_fields(query: Query) -> dict[str, Any]:
    """Fields of a query that say something, by name: those with another value than by default."""
    values = {each.name: (getattr(query, each.name), each.default) for each in fields(query)}
    return {
        name: value
        for name, (value, default) in values.items()
        if value is not default and (default is None or value != default)
    }


def query_of(query: str | Query, completion: str | None = None) -> Query:
    """A query as it is, or that of a prompt and its completion.

    Raises:
        ConfigError: A completion stands beside a whole query.
    """
    if isinstance(query, str):
        return Query(prompt=query, completion=completion)
    if completion is not None:
        raise ConfigError(
            field="completion", expected="a prompt before it", found="a query", remedy="make it a field of the query"
        )
    return query


def asked_record(query: Query) -> dict[str, Any]:
    """A query as plain values, as it is asked: what is given of it, and the prompt unless it has another form."""
    record = given_fields(query)
    if query.image is not None:
        record["image"] = _picture_record(query.image)
    for name in {"messages", "contrast"} & record.keys():
        record[name] = _messages_record(record[name])
    if query.tensors is not None:
        record["tensors"] = {name: _plain(value) for name, value in query.tensors.items()}
    if query.queries is not None:
        record["queries"] = [asked_record(each) for each in query.queries]
    return record if record.keys() & OTHER_FORMS else {"prompt": query.prompt} | record


def _plain(value: Any) -> Any:
    """An array or a tensor as nested lists; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _messages_record(messages: Any) -> Any:
    """Messages with their pictures in base64; anything else as it is."""
    from gindex.corpus.picture_pieces import with_pictures

    return with_pictures(messages, _picture_record)


def _picture_record(image: Any) -> str:
    """The bytes of a picture in base64; of one that cannot be read, what was given."""
    from gindex.corpus.pictures import picture_content

    if isinstance(image, bytes):
        return b64encode(image).decode()
    try:
        return b64encode(picture_content(image, "image").data).decode()
    except GindexError:
        return str(image)


def query_record(query: Query) -> dict[str, Any]:
    """A query as plain values, as results show it: what is given of it, and always the id, prompt and completion."""
    return {"id": query.id, "prompt": query.prompt, "completion": query.completion} | asked_record(query)


def contents_of(messages: Sequence[Message]) -> str:
    """Contents of messages in OpenAI's or ShareGPT's style, a line each; those of another kind than text are left out.

    They are read before the messages are checked.
    """
    said = (message.get("content", message.get("value")) for message in messages if isinstance(message, dict))
    return "\n".join(filter(None, map(_text_of, said)))


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    pieces = content if isinstance(content, Sequence) else ()
    texts = (piece.get("text") for piece in pieces if isinstance(piece, dict))
    return "".join(text for text in texts if isinstance(text, str))
