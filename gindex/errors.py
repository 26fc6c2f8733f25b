"""Every error that gindex raises on purpose.

    GindexError
    ├── ConfigError               an option outside its range, or options that exclude each other
    ├── MissingDependencyError    an optional package is not installed; names the extra
    ├── CorpusError               a source that is missing, empty, malformed or has duplicate ids
    │   ├── CorpusChangedError    a source differs from the one that an unfinished build read
    │   └── LabelError            a label outside the model's range; names the document
    ├── ModelError                a model that cannot be loaded or used
    │   ├── TokenizerError        no usable tokenizer
    │   ├── NothingToTrackError   no layer that gindex can take gradients of
    │   └── TrackedLayerError     a tracked layer does in a pass what it did not do when the model was tried
    ├── QueryError                a query that has no gradient: empty completion, too long, no tokens
    │   └── FilterError           a filter that does not parse, or names a field that no document has
    ├── NonFiniteError            a NaN or an infinity; names the document or layer
    │   └── DivergenceError       an iteration that grows without bound; names the settings to change
    ├── TrainingError             a training function that fails, diverges, or ignores its subset
    ├── ShapeError                tensors whose axes do not fit together
    ├── ResourceError             the system has no more open files, mappings or memory to give; names the limit
    ├── ServiceError              a service cannot answer, or refuses to
    │   ├── AccessError           the API key is missing, unknown, or lacks the scope
    │   ├── UnknownIndexError     the service has no index of the name
    │   ├── RequestError          the request cannot be read, or is over a limit
    │   ├── OverloadedError       too many requests wait, or came with one key; try again later
    │   ├── TimeLimitError        a stage took longer than it may
    │   └── UnavailableError      the service or the index is not ready, or cannot be reached
    └── StoreError                an index directory that cannot be used as asked
        ├── NotAnIndexError       no index there, or an unfinished one
        ├── SettingsMismatchError the index was made with other settings
        ├── FormatVersionError    written by a newer gindex
        ├── CorruptStoreError     missing, truncated or altered file
        ├── BusyError             another process is writing
        ├── VersionError          no such version, or one that came in between
        ├── UnknownDocumentError  an id that no document of the index has
        └── MismatchError         model, tokenizer or projection differs from the recorded one

An error says where, what was expected, what was found, and what to do, each on its own, and the message puts them
together. Settings go by their names in Python, in backticks within a text; the command line and the service put them
in their own words. The command line exits with `exit_code`.
"""

from typing import Any

PARTS = ("field", "expected", "found", "remedy")


class GindexError(Exception):
    """Base of all errors that gindex raises on purpose.

    Attributes:
        field: Where: the name of a setting, a file and line, a layer, a query; empty where the message has no parts.
        expected: What was expected there.
        found: What was found instead.
        remedy: What to do about it.
        exit_code: Exit code of a command that ends with the error.
    """

    exit_code = 1

    def __init__(
        self, message: str = "", *, field: object = "", expected: object = "", found: object = "", remedy: object = ""
    ) -> None:
        """Set the parts, each as it is written out, or a message in the place of all but the field.

        Args:
            message: What is wrong, where it does not come apart.
            field: Where.
            expected: What was expected.
            found: What was found.
            remedy: What to do.
        """
        self.field, self.expected, self.found, self.remedy = str(field), str(expected), str(found), str(remedy)
        super().__init__(message_of(message=message, **self.parts()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles take the message and the attributes, whatever a subclass's constructor takes."""
        return _rebuilt, (type(self), self.args), vars(self)

    def parts(self) -> dict[str, str]:
        """Field, expected, found and remedy; without those that are empty."""
        return {name: part for name in PARTS if (part := getattr(self, name))}


def _rebuilt(kind: type[GindexError], arguments: tuple[Any, ...]) -> GindexError:
    return kind.__new__(kind, *arguments)


def message_of(*, field: str = "", expected: str = "", found: str = "", remedy: str = "", message: str = "") -> str:
    """Message that puts the parts of an error together; the empty ones are left out.

    Args:
        field: Where.
        expected: What was expected.
        found: What was found.
        remedy: What to do.
        message: What is wrong, in the place of the three above.
    """
    clauses = ", ".join([f"expected {expected}"] * bool(expected) + [f"found {found}"] * bool(found))
    wrong = message or "; ".join(clause for clause in (clauses, remedy) if clause)
    return f"{field}: {wrong}" if field else wrong


class ConfigError(GindexError):
    """An option is outside its range, or excludes another one."""

    exit_code = 2


class MissingDependencyError(GindexError):
    """An optional package is needed and not installed."""

    exit_code = 3


class CorpusError(GindexError):
    """A corpus source is missing, empty, malformed, or repeats an id."""

    exit_code = 4


class CorpusChangedError(CorpusError):
    """A corpus source is not the one that the unfinished build read."""


class LabelError(CorpusError):
    """A document's label is not one that the model can give."""


class ModelError(GindexError):
    """A model cannot be loaded or used."""

    exit_code = 5


class TokenizerError(ModelError):
    """The model has no usable tokenizer."""


class NothingToTrackError(ModelError):
    """The model has no layer that gindex can take gradients of."""


class TrackedLayerError(ModelError):
    """A tracked layer does in a pass what it did not do when the model was tried: its gradients would be wrong."""


class QueryError(GindexError):
    """A query has no gradient: nothing to predict, or more tokens than the model takes."""

    exit_code = 6


class FilterError(QueryError):
    """A filter does not parse, or names a field that no document has; says where in it."""


class NonFiniteError(GindexError):
    """A loss, gradient or statistic is NaN or infinite."""

    exit_code = 7


class DivergenceError(NonFiniteError):
    """An iteration moves away from what it should converge to."""


class ShapeError(GindexError):
    """Tensors whose axes do not fit together."""


class ResourceError(GindexError):
    """The system has no more open files, mappings or memory to give; nothing is damaged."""

    exit_code = 11


class StoreError(GindexError):
    """An index directory cannot be used as asked."""

    exit_code = 8


class NotAnIndexError(StoreError):
    """The directory holds no finished index."""


class SettingsMismatchError(StoreError):
    """The index in the directory was made with other settings."""


class FormatVersionError(StoreError):
    """The index was written by a newer gindex."""


class CorruptStoreError(StoreError):
    """A file of the index is missing, truncated or altered."""


class MismatchError(StoreError):
    """The model, tokenizer or projection is not the one recorded in the index."""


class BusyError(StoreError):
    """Another process is writing to the index."""


class VersionError(StoreError):
    """The index has no such version, or another writer committed the number first."""


class UnknownDocumentError(StoreError):
    """No document of the index has the id."""


class TrainingError(GindexError):
    """A training function to compare with fails, diverges, or ignores the documents it is to train on."""

    exit_code = 10


class ServiceError(GindexError):
    """A service cannot answer, or refuses to."""

    exit_code = 9


class AccessError(ServiceError):
    """The API key is missing, unknown, or lacks the scope."""


class UnknownIndexError(ServiceError):
    """The service has no index of the name."""


class RequestError(ServiceError):
    """The request cannot be read, or is over a limit."""


class OverloadedError(ServiceError):
    """Too many requests wait, or came with one key; trying again later helps."""


class TimeLimitError(ServiceError):
    """A stage took longer than it may."""


class UnavailableError(ServiceError):
    """The service or the index is not ready, or cannot be reached."""
