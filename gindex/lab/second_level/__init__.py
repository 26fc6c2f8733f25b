"""The second level of curvature, a transform of vectors: what EK-FAC leaves of the curvature, repaired in their space.

It can do much good, or with few documents much harm (docs/decisions/0004-second-level.md).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from gindex.lab.second_level.config import SecondLevelConfig
from gindex.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gindex.lab.second_level.transform import StoredLevel
    from gindex.store.reader import VectorReader


class SecondLevelKind:
    """The kind, as it is registered: a `store.transform.TransformKind`. Nothing heavy is loaded before it is used."""

    settings = SecondLevelConfig
    help = "whitening by the second moment of the stored vectors"

    def fit(
        self,
        reader: "VectorReader",
        excluded: "npt.NDArray[np.int64]",
        settings: SecondLevelConfig,
        progress: Progress,
    ) -> "StoredLevel":
        """Fit R to the stored vectors; see `transform.fit_stored`."""
        from gindex.lab.second_level.transform import fit_stored

        return fit_stored(reader, excluded, settings.mu, progress)

    def open(self, path: Path, parts: int, dimension: int) -> "StoredLevel":
        """Load R from its file; see `transform.read_level`."""
        from gindex.lab.second_level.transform import read_level

        return read_level(path, parts, dimension)


TRANSFORM = SecondLevelKind()
