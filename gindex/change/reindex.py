"""Building what is derived from the vectors again: the FAISS index, and what the vectors are transformed by.

No model is needed, and no vector changes.
"""

from collections.abc import Mapping
from typing import Any

from gindex.config import NO_TRANSFORM, TRANSFORMS
from gindex.errors import ConfigError
from gindex.model.passes import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import TransformChoice, deriving, recorded_choice
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.records import Operation, OperationKind
from gindex.store.versions import latest_version, writing
from gindex.store.writer import write_version


@plain()
def reindex(
    layout: Layout,
    kind: str = "auto",
    progress: Progress | None = None,
    *,
    transform: str | None = None,
    transform_settings: Mapping[str, Any] | None = None,
) -> Manifest:
    """Build the FAISS index of the newest version again and commit.

    Args:
        layout: The index.
        kind: One of `ann.spec.KINDS`, or `auto`.
        progress: Where the work is reported.
        transform: What vectors are transformed by before they are compared: a registered kind, or none; None leaves
            that as it is.
        transform_settings: Its settings; the others stay as they are, or at their defaults where the kind is new.

    Raises:
        ConfigError: There is no such kind, or a setting is unknown, out of range, or given without a transform.
        CorruptStoreError: A file but the FAISS index is damaged.
        StoreError: The index cannot be written.
    """
    with writing(layout):
        manifest = Manifest.read(layout, latest_version(layout))
        for file in manifest.lasting:
            file.check_length(layout.root)
        choice = _choice(recorded_choice(manifest.search), transform, transform_settings or {})
        operation = Operation(kind=OperationKind.REINDEX, type=kind)
        return write_version(layout, manifest, operation, deriving(progress or Silent(), kind=kind, transform=choice))


def _choice(
    recorded: TransformChoice | None, transform: str | None, settings: Mapping[str, Any]
) -> TransformChoice | None:
    """Kind and settings of the transform that is asked for; None for none."""
    kind, known = recorded or (NO_TRANSFORM, {})
    if transform not in (None, kind):
        kind, known = str(transform), {}
    if kind != NO_TRANSFORM:
        TRANSFORMS.settings(kind, settings)  # refuses them by name before anything is done
        return kind, {**known, **settings}
    if settings:
        raise ConfigError(
            field=" and ".join(f"transform_{name}" for name in settings), expected="`transform` beside it", found="none"
        )
    return None
