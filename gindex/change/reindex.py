"""Building what is derived from the vectors again: the FAISS index and, where asked for, the second level of curvature.

No model is needed, and no vector changes.
"""

from gindex.config import SecondLevelConfig
from gindex.errors import ConfigError
from gindex.model.passes import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import deriving, recorded_mu
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
        operation = Operation(kind=OperationKind.REINDEX, type=kind)
        return write_version(layout, manifest, operation, deriving(progress or Silent(), kind=kind, mu=chosen))


def _chosen_mu(manifest: Manifest, second_level: bool | None, mu: float | None) -> float | None:
    """The mu of the second level that is asked for; None for none."""
    recorded = recorded_mu(manifest.search)
    on = recorded is not None if second_level is None else second_level
    if mu is not None and not on:
        raise ConfigError(field="mu", expected="`second_level` on", found="it off", remedy="give both")
    if not on:
        return None
    known = SecondLevelConfig() if recorded is None else SecondLevelConfig(mu=recorded)
    return known.mu if mu is None else SecondLevelConfig(mu=mu).mu
