"""Pictures of conversations as records have them: among the pieces of a turn's content, or in a field beside it.

A piece `{"type": "image"}` is the place of a picture, which it holds itself (as `image`, `url` or `path`) or which is
the next one of the field. Where contents have no such pieces, `<image>` in them is such a place; where they have
neither, all pictures come first in the first turn of the user, as TRL puts them.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gindex.corpus.contents import OBJECT, Content
from gindex.corpus.messages import parse_json
from gindex.corpus.picture_pieces import ADDRESSES, CONTENTS, held, is_list, is_picture
from gindex.corpus.pictures import picture_content
from gindex.errors import CorpusError

TAG = "<image>"
"""What stands for a picture in contents that are text alone, as LLaVA's records have it."""


class PictureReader:
    """Takes the pictures out of the conversations of one record, in the order in which they stand there."""

    def __init__(self, beside: object, place: str) -> None:
        """Take the pictures beside the conversations.

        Args:
            beside: One picture or a list of them; None for none.
            place: What messages of errors call the record.
        """
        listed: Sequence[Any] = beside if is_list(beside) else [beside]  # type: ignore[assignment]
        self._beside = [picture for picture in listed if picture is not None]
        self._place, self._next = place, 0
        self._found: list[Content] = []

    def read(self, *conversations: object) -> list[Any]:
        """Put `OBJECT` in the place of each picture; conversations that follow on each other.

        Raises:
            CorpusError: A picture cannot be taken, or there are not as many as places for them.
        """
        parsed = [
            parse_json(each, self._place) if isinstance(each, str) and each.lstrip()[:1] == "[" else each
            for each in conversations
        ]
        for content in _contents(parsed):
            if OBJECT in content:
                raise CorpusError(
                    field=self._place,
                    expected="texts without the character U+FFFC, which stands for a picture",
                    found="it",
                    remedy="take it out",
                )
        tagged = self._beside and not any(map(is_picture, _pieces(parsed)))
        if tagged and not any(TAG in content for content in _contents(parsed)):
            parsed = _with_first_places(parsed, len(self._beside))
        read = [self._conversation(each, tagged=bool(tagged)) for each in parsed]
        if self._next != len(self._beside):
            raise self._unlike(f"{len(self._beside)} beside {self._next} places for them")
        return read

    @property
    def pictures(self) -> tuple[Content, ...]:
        """The pictures that were found, in order."""
        return tuple(self._found)

    def _conversation(self, messages: object, *, tagged: bool) -> Any:
        if not is_list(messages):
            return messages  # what it should be is said where conversations are checked
        return [self._message(message, tagged=tagged) for message in messages]  # type: ignore[attr-defined]

    def _message(self, message: object, *, tagged: bool) -> Any:
        if not isinstance(message, Mapping):
            return message
        changed = dict(message)
        for name in CONTENTS:
            content = message.get(name)
            if isinstance(content, str) and tagged:
                changed[name] = self._tagged(content)
            elif is_list(content):
                changed[name] = [self._piece(piece, tagged=tagged) for piece in content]  # type: ignore[union-attr]
        return changed

    def _tagged(self, text: str) -> str:
        before, *others = text.split(TAG)
        return before + "".join(self._placed({}) + behind for behind in others)

    def _piece(self, piece: object, *, tagged: bool) -> Any:
        if not isinstance(piece, Mapping):
            return piece
        if is_picture(piece):
            return {"type": "text", "text": self._placed(piece)}
        text = piece.get("text")
        return {**piece, "text": self._tagged(text)} if tagged and isinstance(text, str) else piece

    def _placed(self, piece: Mapping[str, Any]) -> str:
        """Read the picture of a place, and return what stands for it."""
        value = held(piece)
        place = f"{self._place}, picture {len(self._found) + 1}"
        if value is None:
            if self._next == len(self._beside):
                raise self._unlike(f"{len(self._beside)} beside more places for them")
            value = self._beside[self._next]
            self._next += 1
        self._found.append(picture_content(_file(value, place), place))
        return OBJECT

    def _unlike(self, found: str) -> CorpusError:
        return CorpusError(
            field=self._place,
            expected='as many pictures as there are places for them ({"type": "image"} in a content, or <image>)',
            found=found,
            remedy="correct or remove the record",
        )


def _file(value: object, place: str) -> object:
    """What `picture_content` takes: the bytes of data in an address; other addresses are refused."""
    if not isinstance(value, str) or not value.startswith(("data:", *ADDRESSES)):
        return value
    if value.startswith("data:") and ";base64," in value:
        try:
            return b64decode(value.partition(";base64,")[2], validate=True)
        except (Base64Error, ValueError):
            pass
    raise CorpusError(
        field=place,
        expected="a picture: the bytes or the path of its file, or its data in base64",
        found="an address, which is not fetched" if value.startswith(ADDRESSES) else "data that are not base64",
        remedy="fetch it, and give its path",
    )


def _with_first_places(conversations: list[Any], count: int) -> list[Any]:
    """Conversations with places for all pictures before what the user says first; as they are without such a turn."""
    changed = [list(each) if is_list(each) else each for each in conversations]
    for messages in changed:
        for n, message in enumerate(messages if isinstance(messages, list) else ()):
            if isinstance(message, Mapping) and message.get("role", message.get("from")) in ("user", "human"):
                name = "content" if message.get("content") is not None else "value"
                pieces = message.get(name) if is_list(message.get(name)) else [_text(message.get(name))]
                messages[n] = {**message, name: [{"type": "image"}] * count + list(pieces)}  # type: ignore[arg-type]
                return changed
    return changed


def _text(text: object) -> dict[str, object]:
    return {"type": "text", "text": text}


def _messages(conversations: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    for messages in conversations:
        yield from (each for each in messages if isinstance(each, Mapping)) if is_list(messages) else ()


def _pieces(conversations: Sequence[Any]) -> Iterator[Any]:
    for message in _messages(conversations):
        for name in CONTENTS:
            if is_list(message.get(name)):
                yield from message[name]


def _contents(conversations: Sequence[Any]) -> Iterator[str]:
    """The texts that are said in conversations."""
    for message in _messages(conversations):
        yield from (message[name] for name in CONTENTS if isinstance(message.get(name), str))
    for piece in _pieces(conversations):
        if isinstance(piece, Mapping) and isinstance(piece.get("text"), str):
            yield piece["text"]
