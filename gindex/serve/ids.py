"""The id of a document in an address: of any text, and only ever the one that was sent."""

import re
from urllib.parse import unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request

from gindex.errors import ConfigError
from gindex.serve.problems import RefusedError
from gindex.serve.protocol import TARGET


class _AnyText(Convertor[str]):
    """Any text to the end of an address, where `path` of the framework ends before a line break."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any", _AnyText())


def document_id_of(request: Request, name: str) -> str:
    """Return the id in the address of a document, from the bytes that were sent.

    The framework's own has percent signs decoded before the address is taken apart, and what is not UTF-8 replaced.

    Args:
        request: A request to `/v1/indexes/{name}/documents/{id}`.
        name: The name of the index, as the framework found it.

    Raises:
        RefusedError: The address has a query, or is not UTF-8 (400), or a slash in its name (404).
    """
    target: bytes = request.scope.get(TARGET) or request.scope["raw_path"]
    path = re.sub(rb"^[A-Za-z][A-Za-z0-9+.-]*://[^/]*", b"", target)  # of a request to a proxy
    if b"?" in path or request.url.query:
        raise RefusedError(400, expected="? of an id as %3F in the address", found="it as it is")
    _, *found = path.split(b"/", 5)
    if len(found) != 5 or unquote_to_bytes(found[2]) != name.encode():
        raise RefusedError(
            404, expected="/v1/indexes/NAME/documents/ID", found="another address", remedy="write / of an id as %2F"
        )
    return text_of(unquote_to_bytes(found[4]))


def text_of(content: bytes) -> str:
    """Return bytes of UTF-8 as text.

    Raises:
        RefusedError: They are none (400).
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
