"""The SQLite file of a document table: its tables, its opening, and its errors in gindex's terms.

`documents` has one entry per document, numbered on through the tables of an index; `parts` has one per part, numbered
likewise, with its tokens as little-endian uint32, the context first. `losses` has one entry per part of which not every
token but the first counts alike; `contents` has what documents were made of that are not plain text. Tables of text
alone lack both, and are of version 2; `losses` of version 3 has no labels and no second texts. `files` has the
parts that are pictures or tensors; tables without any have none, and are of version 4 at most. `words` is the full-text
index of the documents' texts as `words.indexed` gives them, without the texts. In tables of version 1 it has the texts'
own words, cut by SQLite.
"""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gindex.documents.losses import FILE_COLUMNS, LABEL_COLUMNS, LOSS_COLUMNS
from gindex.documents.values import register
from gindex.documents.words import indexed
from gindex.errors import CorruptStoreError, FilterError, FormatVersionError, StoreError
from gindex.files.open_files import check_shortage

APPLICATION_ID = int.from_bytes(b"gidx", "big")
VERSION, LABELS_VERSION, FORMS_VERSION, TEXT_VERSION = 5, 4, 3, 2
"""Versions of tables: the newest, that without pictures and tensors, that without labels, and that of text whose tokens
count alike."""

PLAIN_WORDS = 1
"""The version of tables whose full-text index has no pairs of characters, for scripts without spaces."""

PARTS_INDEX = "parts_of_documents"
"""The index by which parts are found by document, and their lengths read without their tokens.

Tables that were made before it have an index of documents and numbers of parts alone."""

_WRITING_CACHE, _READING_CACHE = 256 << 20, 16 << 20
"""Bytes of pages that SQLite holds: of a table that is filled, so that ids in no order find their place in memory, and
of one that is read. A file is never mapped: one that is cut short meanwhile would kill the process."""

_CHECKPOINT_PAGES = 16_384
"""Pages of 4 KB in the log of a table that is filled, after which they are moved to their places."""

FULL_TEXT = "fts5(text, content = '', tokenize = 'ascii')"
"""The full-text index; it divides texts at spaces and at every ASCII character that is no letter or digit."""

DOCUMENT_COLUMNS = ("ordinal", "id", "text", "metadata")
PART_COLUMNS = ("ordinal", "document", "part", "start", '"end"', "tokens", "token_count")
SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {TEXT_VERSION};
CREATE TABLE documents(
    ordinal INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, metadata TEXT NOT NULL
);
CREATE TABLE parts(
    ordinal INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents(ordinal), part INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, tokens BLOB NOT NULL, token_count INTEGER NOT NULL
);
CREATE UNIQUE INDEX {PARTS_INDEX} ON parts(document, part, token_count);
CREATE VIRTUAL TABLE words USING {FULL_TEXT};
"""
_FORMS = (
    """CREATE TABLE losses(
    part INTEGER PRIMARY KEY REFERENCES parts(ordinal), targets INTEGER NOT NULL, counted BLOB, weights BLOB,
    rejected INTEGER, beta REAL, reference REAL, weight REAL
)""",
    """CREATE TABLE contents(
    document INTEGER PRIMARY KEY REFERENCES documents(ordinal), form TEXT NOT NULL, content TEXT NOT NULL
)""",
    f"PRAGMA user_version = {FORMS_VERSION}",
)
_LABELS = (
    "ALTER TABLE losses ADD COLUMN labels BLOB",
    "ALTER TABLE losses ADD COLUMN second INTEGER",
    f"PRAGMA user_version = {LABELS_VERSION}",
)
_FILES = (
    """CREATE TABLE files(
    part INTEGER PRIMARY KEY REFERENCES parts(ordinal), type TEXT NOT NULL, data BLOB NOT NULL
)""",
    f"PRAGMA user_version = {VERSION}",
)
CACHE = "PRAGMA cache_size = -65536"
"""64 MiB of pages, in the place of 2: ids come in any order, and each goes to a page of its own."""

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FORMAT)
_LACKING = re.compile("no such (table|column|module)|malformed JSON|malformed database schema|unsupported file format")
"""Messages of SQLite about a damaged file, or one that is no document table."""

_ASKED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_INTERRUPT)
"""Codes of a request that SQLite refuses: a pattern too complex or too long, an expression too deep, a slow search."""

_LOOK_STEPS = 20_000
"""Steps of SQLite's virtual machine, some tenths of a millisecond, between two looks at the clock."""


def create(path: Path, schema: str | None = None) -> sqlite3.Connection:
    """Make a new file with empty tables, those of a document table where None, and open it for writing."""
    connection = sqlite3.connect(path)
    pragmas = (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"cache_size = {-_WRITING_CACHE // 1024}",
        f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
    )
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(CACHE)
    connection.executescript(schema or SCHEMA)
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """Open an existing file for reading; the caller serialises its use by several threads.

    Raises:
        CorruptStoreError: The file is missing, or not a document table.
        FormatVersionError: It was written by a newer gindex.
    """
    if not path.is_file():
        raise CorruptStoreError(
            field=path, expected="a document table", found="no file", remedy="restore it or build the index again"
        )
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with translated_errors(path):
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            for pragma in ("trusted_schema = OFF", "cell_size_check = ON"):  # the file may be damaged
                connection.execute(f"PRAGMA {pragma}")
            connection.execute(f"PRAGMA cache_size = {-_READING_CACHE // 1024}")
            _check_format(connection, path)
            register(connection)
        except BaseException:
            connection.close()
            raise
    return connection


def select_parts(version: int, documents: bool = False) -> str:
    """The beginning of a statement that gives parts `p`: `PART_COLUMNS`, then those of losses and files or NULL.

    Args:
        version: Version of the table.
        documents: Give `DOCUMENT_COLUMNS` of their documents `d` after them, and what these were made of: their form
            and content, or NULL for plain text.
    """
    columns, tables = [f"p.{column}" for column in PART_COLUMNS], "parts p"
    for names, since in ((LOSS_COLUMNS, FORMS_VERSION), (LABEL_COLUMNS, LABELS_VERSION)):
        columns += [f"l.{name}" if version >= since else "NULL" for name in names]
    columns += [f"f.{name}" if version >= VERSION else "NULL" for name in FILE_COLUMNS]
    if version >= FORMS_VERSION:
        tables += " LEFT JOIN losses l ON l.part = p.ordinal"
    if version >= VERSION:
        tables += " LEFT JOIN files f ON f.part = p.ordinal"
    if documents:
        columns += [f"d.{column}" for column in DOCUMENT_COLUMNS]
        tables += " JOIN documents d ON d.ordinal = p.document"
        columns += ["c.form", "c.content"] if version >= FORMS_VERSION else ["NULL", "NULL"]
        if version >= FORMS_VERSION:
            tables += " LEFT JOIN contents c ON c.document = d.ordinal"
    return f"SELECT {', '.join(columns)} FROM {tables}"


def add_forms(connection: sqlite3.Connection) -> None:
    """Add the tables of other forms of documents to a table of text."""
    if version_of(connection) < FORMS_VERSION:
        for statement in _FORMS:
            connection.execute(statement)


def add_losses(connection: sqlite3.Connection, part: int, columns: tuple[object, ...]) -> None:
    """Write what counts in a part: `LOSS_COLUMNS`, and `LABEL_COLUMNS`, which a table gets when it needs them."""
    add_forms(connection)
    names: tuple[str, ...] = LOSS_COLUMNS
    if any(value is not None for value in columns[len(LOSS_COLUMNS) :]):
        names += LABEL_COLUMNS
        _add_labels(connection)
    marks = ", ".join("?" * (1 + len(names)))
    entry = (part, *columns[: len(names)])
    connection.execute(f"INSERT INTO losses (part, {', '.join(names)}) VALUES ({marks})", entry)


def add_file(connection: sqlite3.Connection, part: int, columns: tuple[str, bytes]) -> None:
    """Write the picture or the tensors of a part: `FILE_COLUMNS`, for which a table gets room when it needs it."""
    _add_labels(connection)
    if version_of(connection) < VERSION:
        for statement in _FILES:
            connection.execute(statement)
    connection.execute("INSERT INTO files VALUES (?, ?, ?)", (part, *columns))


def _add_labels(connection: sqlite3.Connection) -> None:
    add_forms(connection)
    if version_of(connection) < LABELS_VERSION:
        for statement in _LABELS:
            connection.execute(statement)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of a table."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def has_parts_index(connection: sqlite3.Connection) -> bool:
    """Say whether lengths of parts can be read without their tokens."""
    statement = "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?"
    return connection.execute(statement, (PARTS_INDEX,)).fetchone() is not None


def read_document(connection: sqlite3.Connection, ordinal: int) -> tuple[str, str, str, str, str] | None:
    """Read id, text, metadata, form and content of a document; None where it is not in this table."""
    statement = "SELECT id, text, metadata FROM documents WHERE ordinal = ?"
    row = connection.execute(statement, (ordinal,)).fetchone()
    if row is None:
        return None
    form, content = "text", "{}"
    if version_of(connection) >= FORMS_VERSION:
        statement = "SELECT form, content FROM contents WHERE document = ?"
        form, content = connection.execute(statement, (ordinal,)).fetchone() or (form, content)
    return (*row, form, content)


def index_words(connection: sqlite3.Connection, ordinal: int, text: str, *, table: str = "words") -> None:
    """Write the words of a document into a full-text index."""
    connection.execute(f"INSERT INTO {table}(rowid, text) VALUES (?, ?)", (ordinal, indexed(text)))


def leave_single_file(connection: sqlite3.Connection) -> None:
    """Move everything committed into the main file, so that nothing lies beside it and it can be read anywhere."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA journal_mode = DELETE")


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file at `path` into gindex's.

    Raises:
        StoreError: Another process holds the file locked.
        CorruptStoreError: The file cannot be read as a document table.
        ResourceError: The system lets no more files be opened.
    """
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.DatabaseError as error:
        if _code(error) in _BUSY:
            raise StoreError(
                field=path, expected="no other writer", found="it locked", remedy="wait until the other one is done"
            ) from error
        if _code(error) == sqlite3.SQLITE_CANTOPEN:
            check_shortage(error, path)
        if is_damage(error):
            raise CorruptStoreError(
                field=path,
                expected="a document table",
                found=f"a file that SQLite cannot use ({error})",
                remedy="restore it or build the index again",
            ) from error
        raise StoreError(
            field=path, expected="SQLite to read the table", found=f"that it cannot now: {error}"
        ) from error


@contextmanager
def asked_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about a statement with a caller's filter or words into gindex's.

    An error that is neither damage nor a lock is the request's.

    Raises:
        FilterError: SQLite refuses what was asked for.
        StoreError: See `translated_errors`.
        CorruptStoreError: See `translated_errors`.
    """
    with translated_errors(path):
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except (sqlite3.DatabaseError, OverflowError, UnicodeEncodeError) as error:
            if isinstance(error, sqlite3.DatabaseError) and (is_damage(error) or _code(error) not in _ASKED):
                raise
            # Numbers and texts that SQLite has no type for are refused before a statement runs.
            found = "it takes too long" if "interrupted" in str(error) else error
            raise FilterError(
                field="where", expected="what SQLite can look for", found=f"that {found}", remedy="simplify it"
            ) from error


@contextmanager
def limited(connection: sqlite3.Connection, seconds: float | None) -> Iterator[None]:
    """Interrupt statements that take longer than a number of seconds; None sets no limit."""
    if seconds is None:
        yield
        return
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _LOOK_STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def is_damage(error: sqlite3.Error) -> bool:
    """Say whether an error of SQLite is about a damaged file, or one that is no document table."""
    return _code(error) in _DAMAGE or (_code(error) in (0, sqlite3.SQLITE_ERROR) and bool(_LACKING.search(str(error))))


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def remove_beside(path: Path) -> None:
    """Remove the files that SQLite left beside `path`: a later file of that name would be read together with them."""
    for ending in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise CorruptStoreError(
            field=path,
            expected=f"a document table with application id {APPLICATION_ID}",
            found=application_id,
            remedy="restore it or build the index again",
        )
    version = version_of(connection)
    if version > VERSION:
        raise FormatVersionError(
            field=path,
            expected=f"document table version {VERSION} or less",
            found=version,
            remedy="install a newer gindex",
        )
