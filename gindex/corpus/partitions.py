"""Fields that stand in the names of folders, as Hive and Spark write them: `lang=de/part-0.parquet`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import unquote

from gindex.config import CorpusConfig
from gindex.corpus.records import Record
from gindex.errors import CorpusError

_PARTITION = re.compile(r"([\w%][\w%. -]*)=(.*)", re.DOTALL)
_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_fields(given: Sequence[str], below: Sequence[str], location: str) -> dict[str, str | None]:
    """Return the fields of a file. Values are text; what their writer took them for does not stand in a name.

    Args:
        given: The folders of the path that the user gave: those at its end that are partitions count.
        below: The folders from there to the file: every partition counts.
        location: The file, for messages.

    Raises:
        CorpusError: Two folders name the same field.
    """
    ending: list[str] = []
    for folder in reversed(given):
        if not _PARTITION.fullmatch(folder):
            break
        ending.insert(0, folder)
    found: dict[str, str | None] = {}
    for folder in [*ending, *below]:
        if match := _PARTITION.fullmatch(folder):
            # Bytes that are not UTF-8 stay in them as half surrogate pairs, which no record may hold.
            name, value = (unquote(part, errors="surrogateescape") for part in match.groups())
            if name in found:
                raise CorpusError(
                    field=location,
                    expected=f"one folder for the field {name!r}",
                    found="two",
                    remedy="rename one of the folders",
                )
            found[name] = None if value == _NULL else value
    return found


def with_partition(record: Record, fields: Mapping[str, str | None], config: CorpusConfig) -> Record:
    """Add the fields of a file's folders to a record of it.

    Raises:
        CorpusError: A field is that of the text or the id, or the record has another value in it.
    """
    if not fields or not isinstance(record.fields, Mapping):
        return record
    for name, value in fields.items():
        if name in (config.text_field, config.id_field):
            setting = "text_field" if name == config.text_field else "id_field"
            raise CorpusError(
                field=record.place,
                expected=f"the field {name!r} in records",
                found="it in the name of a folder",
                remedy=f"rename the folder, or name another field with `{setting}`",
            )
        if name in record.fields and (own := record.fields[name]) != value and str(own) != value:
            raise CorpusError(
                field=record.place,
                expected=f"{value!r} in the field {name!r}, as the folder's name says",
                found=repr(str(own)[:50]),
                remedy="correct the record or rename the folder",
            )
    return replace(record, fields={**fields, **record.fields})
