"""The ids of documents in addresses: any text, taken exactly as it was sent."""

import re
from urllib.parse import unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from gindex.errors import ConfigError
from gindex.serve.http_protocol import TARGET, split_target
from gindex.serve.problems import RefusedError


class _AnyText(Convertor[str]):
    """Any text to the end of an address; the framework's own `path` ends at a line break."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", _AnyText())


def document_id_of(request: Request, name: str) -> str:
    """Return the id in the address of a document, from the bytes that were sent.

    The framework decodes percent signs before it takes the address apart, and replaces bytes that are not UTF-8.

    Args:
        request: A request to `/v1/indexes/{name}/documents/{id}`.
        name: The name of the index, as the framework decoded it.

    Raises:
        RefusedError: The address has a query, or is not UTF-8 (400), or a slash in its name (404).
    """
    target: bytes = request.scope.get(TARGET) or request.scope["raw_path"]
    _, path = split_target(target)
    if b"?" in path or request.url.query:
        raise RefusedError(400, expected="? of an id as %3F in the address", found="it as it is")
    _, *steps = path.split(b"/", 5)
    if len(steps) != 5 or unquote_to_bytes(steps[2]) != name.encode():
        raise RefusedError(
            404, expected="/v1/indexes/NAME/documents/ID", found="another address", remedy="write / of an id as %2F"
        )
    return text_of(unquote_to_bytes(steps[4]))


def text_of(content: bytes) -> str:
    """Return bytes of UTF-8 as text.

    Raises:
        RefusedError: They are not UTF-8 (400).
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RefusedError(400, expected="UTF-8 in the address", found="other bytes") from None


def check_unicode(text: str) -> str:
    """Return text that has no half of a surrogate pair.

    Raises:
        ConfigError: It has.
    """
    if re.search("[\ud800-\udfff]", text):
        raise ConfigError(field="text", expected="Unicode text", found="half a surrogate pair", remedy="correct it")
    return text
