"""All kinds of projection by name."""

from collections.abc import Callable, Mapping

import torch

from gindex.vectors.count_sketch import CountSketch
from gindex.vectors.kronecker import Kronecker
from gindex.vectors.projection import Projection, ProjectionSpec
from gindex.vectors.rademacher import Rademacher

_KINDS: Mapping[str, Callable[[ProjectionSpec, torch.device], Projection]] = {
    "count-sketch": CountSketch,
    "rademacher": Rademacher,
    "kronecker": Kronecker,
}


def make_projection(spec: ProjectionSpec, device: torch.device) -> Projection:
    """Prepare the projection of a spec on a device."""
    return _KINDS[spec.kind](spec, device)
