"""What is recorded of a corpus file, read without anything that reads one."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFingerprint:
    """What one corpus file held.

    Attributes:
        path: The path as given, the address of a file in a store without its secrets, or the name of a hub dataset.
        bytes: Size of the file; None for a hub dataset, whose content is not checked, or where a store does not say.
        sha256: Hexadecimal digest of the content; None for a hub dataset, or where `version` stands for it.
        version: What a store says by which a change is told: a tag (ETag), a checksum, or the time of the last change.
    """

    path: str
    bytes: int | None
    sha256: str | None
    version: str | None = None
