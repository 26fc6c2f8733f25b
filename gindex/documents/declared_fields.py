"""Fields of the metadata that are declared to be looked up by index: as filters write them, each once."""

import logging
from collections.abc import Sequence

from gindex.documents.filters import field_names, path_text
from gindex.documents.selection import is_known, known_fields
from gindex.documents.table import DocumentTable
from gindex.errors import ConfigError

logger = logging.getLogger(__name__)


def declared_fields(texts: Sequence[str], setting: str = "index_field") -> list[str]:
    """The fields as they are recorded, each once: `year`, `origin.site`, a name in backticks where it needs them.

    Args:
        texts: The fields, written as in a filter.
        setting: The setting that they are given by, which errors name.

    Raises:
        ConfigError: One is no field of the metadata.
    """
    found: list[str] = []
    for text in texts:
        names = field_names(text)
        if names is None:
            expected = "a field of the metadata, written as in a filter: year, origin.site, `a name with spaces`"
            remedy = "documents are found by their ids without it" if text == "id" else "see docs/filters.md"
            raise ConfigError(field=setting, expected=expected, found=repr(text), remedy=remedy)
        found.append(path_text(names))
    return list(dict.fromkeys(found))


def warn_of_unknown(table: DocumentTable, fields: Sequence[str]) -> None:
    """Say which declared fields no document has: later ones may."""
    for field in fields:
        if not is_known(table, field_names(field) or ()):
            logger.warning("index_field: expected %s, found no document with `%s`", known_fields(table), field)
