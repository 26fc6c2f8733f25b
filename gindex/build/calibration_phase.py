"""The calibrating phase of a build: which ranks and damping suit this model at this dimension."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.build.memory import batch_sizes
from gindex.build.sampling import draw_parts
from gindex.config import BuildConfig
from gindex.corpus.batches import pad
from gindex.documents.table import DocumentTable
from gindex.model.layer_records import LayerRecord
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Progress
from gindex.store.factors import FactorReader
from gindex.store.files import read_json, write_json
from gindex.store.layout import Layout
from gindex.vectors.calibration import DAMPINGS, FRACTIONS, Budget, Setting, calibrate, choose
from gindex.vectors.projection import LayerShape, ProjectionSpec

BATCH_DOCUMENTS, BATCH_LENGTH = 16, 128
"""Documents of a batch, whose scores with one another are looked at, and the tokens that are taken of each, at most."""

FEW_DOCUMENTS, SHORT_LENGTH = 8, 32
"""The same where memory is scarce: documents are cut short before there are fewer of them, down to this length."""


def choose_setting(
    layout: Layout,
    model: TrackedModel,
    table: DocumentTable,
    config: BuildConfig,
    layers: Sequence[LayerRecord],
    progress: Progress,
) -> Setting:
    """The ranks and damping of the stored vectors: those given, or those expected to be the most faithful.

    What was found is kept beside the factors, and taken from there when the build goes on.

    Args:
        layout: The index.
        model: The model.
        table: The documents.
        config: All settings.
        layers: Tracked layers with all of their ranks.
        progress: Where the phase is reported.
    """
    fractions = FRACTIONS if config.vectors.rank_fraction is None else (config.vectors.rank_fraction,)
    dampings = DAMPINGS if config.curvature.index_damping is None else (config.curvature.index_damping,)
    settings = [Setting(*pair) for pair in product(fractions, dampings)]
    if len(settings) == 1:
        return settings[0]
    if not layout.calibration.is_file():
        write_json(layout.calibration, _calibrate(layout, model, table, config, layers, settings, progress))
    chosen = read_json(layout.calibration)["chosen"]
    return Setting(chosen["rank_fraction"], chosen["index_damping"])


def _calibrate(
    layout: Layout,
    model: TrackedModel,
    table: DocumentTable,
    config: BuildConfig,
    layers: Sequence[LayerRecord],
    settings: Sequence[Setting],
    progress: Progress,
) -> dict[str, Any]:
    counts = table.counts()
    drawn = draw_parts(table, config.curvature.calibration_documents, config.seed)
    size = batch_sizes(model, config, counts.parts, counts.longest_part).calibration
    documents, length = batch_shape(size.tokens, counts.longest_part)
    batches = []
    for of_kind, is_alone in _by_kind(table, drawn):
        together = 1 if is_alone else documents
        for start in range(0, len(of_kind), together):
            group = of_kind[start : start + together]
            batch = pad([objective.window(length) for objective in table.objectives(group)], group)
            batches.append((len(group), batch.texts, partial(model.task.losses, batch)))
    with progress.phase("calibrate", len(drawn), "parts") as phase, size.passes(model):
        expected = calibrate(
            model.table.layers,
            FactorReader.of(layout, layers, model).load,
            config.curvature.damping_scale,
            settings,
            Budget(widths=slice_widths(model, config), bits=config.vectors.bits),
            batches,
            phase.advance,
        )
    best = choose(expected)
    entries = [
        {**vars(s), "stored": round(expected[s].stored, 4), "unprojected": round(expected[s].unprojected, 4)}
        for s in settings
    ]
    return {"chosen": vars(best), "parts": len(drawn), "settings": entries}


def _by_kind(table: DocumentTable, parts: npt.NDArray[np.int64]) -> list[tuple[npt.NDArray[np.int64], bool]]:
    """Parts by kind, of which a batch holds one, in the order given; and whether each has a batch of its own."""
    objectives = table.objectives(parts)
    kinds = [(objective.kind, objective.is_alone) for objective in objectives]
    return [(parts[[found == kind for found in kinds]], kind[1]) for kind in sorted(set(kinds))]


def batch_shape(tokens: int, longest: int) -> tuple[int, int]:
    """How many documents a batch has, two at least, and how many tokens of each, for so many tokens in all."""
    length = min(BATCH_LENGTH, longest, max(SHORT_LENGTH, tokens // FEW_DOCUMENTS))
    return min(BATCH_DOCUMENTS, max(2, tokens // length)), length


def slice_widths(model: TrackedModel, config: BuildConfig) -> dict[str, int]:
    """The width of every layer group's slice.

    Raises:
        ConfigError: The dimension doesn't suit the model.
    """
    shapes = [
        LayerShape(name=layer.name, group=layer.group, rows=layer.outputs, columns=layer.inputs)
        for layer in model.table.layers
    ]
    spec = ProjectionSpec(layers=tuple(shapes), dimension=config.vectors.dimension, seed=config.seed)
    return {group: stop - start for group, (start, stop) in spec.slices.items()}
