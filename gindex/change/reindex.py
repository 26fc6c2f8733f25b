"""Building what is derived from the vectors again: the FAISS index and, where asked for, the second level of curvature.

No model is needed, and no vector changes.
"""

from typing import Any

from gindex.config import SecondLevelConfig
from gindex.engine import recorded_projection
from gindex.errors import ConfigError
from gindex.model.passes import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import make_search_index, search_files
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.version import Version
from gindex.store.versions import commit, latest_version, next_version, writing


@plain()
def reindex(
    layout: Layout,
    kind: str = "auto",
    progress: Progress | None = None,
    *,
    second_level: bool | None = None,
    mu: float | None = None,
) -> Manifest:
    """Build the FAISS index of the newest version again and commit.

    Args:
        layout: The index.
        kind: One of `faiss_types.KINDS`, or `auto`.
        progress: Where the work is reported.
        second_level: Whether searches use the second level of curvature; None leaves that as it is.
        mu: Its mu; None leaves it as it is, or takes the default.

    Raises:
        ConfigError: There is no such kind, or mu is not positive, or given without the second level.
        CorruptStoreError: A file but the FAISS index is damaged.
        StoreError: The index cannot be written.
    """
    with writing(layout):
        manifest = Manifest.read(layout, latest_version(layout))
        for file in manifest.lasting:
            file.check_length(layout.root)
        chosen = _chosen_mu(manifest, second_level, mu)
        changes = new_search_index(layout, manifest, kind, chosen, progress or Silent())
        return commit(layout, manifest, {"kind": "index", "type": kind}, **changes)


def _chosen_mu(manifest: Manifest, second_level: bool | None, mu: float | None) -> float | None:
    """Return the mu of the second level that is asked for; None for none."""
    on = manifest.mu is not None if second_level is None else second_level
    if mu is not None and not on:
        raise ConfigError(field="mu", expected="`second_level` on", found="it off", remedy="give both")
    if not on:
        return None
    known = SecondLevelConfig() if manifest.mu is None else SecondLevelConfig(mu=manifest.mu)
    return known.mu if mu is None else SecondLevelConfig(mu=mu).mu


def new_search_index(
    layout: Layout, manifest: Manifest, kind: str, mu: float | None, progress: Progress
) -> dict[str, Any]:
    """Make the derived files of the version to come and return the fields of the manifest that change by them."""
    projection = recorded_projection(layout, manifest)
    path = layout.faiss(next_version(layout))
    version = Version(layout, manifest, lost=manifest.lost_parts)
    search = make_search_index(
        layout, path, version.vectors(), projection, version.excluded, progress, kind=kind, mu=mu
    )
    return {"search": search, "files": [*manifest.lasting, *search_files(layout, search)]}
