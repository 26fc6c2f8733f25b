"""What is recorded of a corpus file, read without anything that reads one."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFingerprint:
    """What one corpus file held.

    Attributes:
        path: The path as given, or the name of a hub dataset.
        bytes: Size of the file; None for a hub dataset, whose content is not checked.
        sha256: Hexadecimal digest of the content; None for a hub dataset.
    """

    path: str
    bytes: int | None
    sha256: str | None
