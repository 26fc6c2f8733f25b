"""The model that an index was built with, and what it needs of the index's files to make vectors of queries."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gindex.config import AUTO, ModelConfig
from gindex.curvature.ekfac import FactorLoader, LayerFactors
from gindex.errors import ConfigError, GindexError, MismatchError, ModelError
from gindex.model.adapter_folder import adapters_in
from gindex.model.fingerprints import NO_ADAPTER, TRANSFORMERS
from gindex.model.isolation import plain
from gindex.model.load import LoadedModel
from gindex.model.named_functions import is_function_name
from gindex.model.tracked_model import TrackedModel
from gindex.store.factors import FactorReader
from gindex.store.model_place import base_places, model_places
from gindex.store.snapshot import Snapshot
from gindex.store.values import values_of
from gindex.thread_safety import Lock, once
from gindex.vectors.encoder import Encoder
from gindex.vectors.projection import Projection, make_projection


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """What whitens and projects gradients that are at hand: factors, damping and projection, on the CPU."""

    factors: dict[str, LayerFactors]
    damping: float
    projection: Projection


class RecordedModel:
    """A model that is looked for, loaded and checked when it is first needed.

    Attributes:
        given: Where it is to be looked for; once it is loaded, where it was found.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        config: ModelConfig,
        tracked: TrackedModel | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            snapshot: The version of the index.
            config: Where the model is; without a name it is looked for where the manifest says that it is.
            tracked: The model, where it is loaded already.
            encoder: What makes vectors with it, likewise.
        """
        self.loading = Lock()
        self._snapshot, self.given = snapshot, config
        if tracked is not None:
            self.tracked = tracked
        if encoder is not None:
            self.encoder = encoder

    @property
    def config(self) -> ModelConfig:
        """Where the model is and how it runs.

        Raises:
            ModelError: It is nowhere that the manifest says.
        """
        return self._places()[0]

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return RecordedModel.tracked.is_made(self)

    @once
    @plain()
    def tracked(self) -> TrackedModel:
        """The model with its tracked layers.

        Raises:
            ModelError: It is nowhere that the manifest says, or cannot be loaded.
            MismatchError: It is not the one that the index was built with.
        """
        errors: list[GindexError] = []
        for config in self._places():
            try:
                tracked = TrackedModel.load(
                    config,
                    self._snapshot.manifest.layers,
                    partial(self._check, config.name),
                    lambda _loaded: self._snapshot.examples(),
                    self._known,
                )
            except (ModelError, MismatchError) as error:
                errors.append(error)
            else:
                self.given = config  # for what loads it again
                return tracked
        raise errors[0]

    @once
    @plain()
    def encoder(self) -> Encoder:
        """What makes vectors of queries."""
        snapshot = self._snapshot
        return self._factor_reader().encoder(self.tracked, snapshot.projection, snapshot.manifest.damping.index)

    @once
    @plain()
    def factors(self) -> FactorLoader:
        """Loads the untruncated factors of a layer."""
        return self._factor_reader().load

    @once
    @plain()
    def whitening(self) -> Whitening:
        """What makes vectors of gradients; the model is not loaded for it."""
        self._snapshot.check_factors()  # before a native library reads them
        manifest, device = self._snapshot.manifest, torch.device("cpu")
        return Whitening(
            factors=FactorReader(self._snapshot.layout, manifest.layers, device).truncated(),
            damping=manifest.damping.index,
            projection=make_projection(self._snapshot.projection, device),
        )

    def twin(self) -> "RecordedModel":
        """The same weights in modules of their own; see `TrackedModel.twin`."""
        tracked = self.tracked.twin
        return RecordedModel(self._snapshot, self.given, tracked, self.encoder.on(tracked))

    def of(self, snapshot: Snapshot) -> "RecordedModel":
        """The model of another version of the index; what is loaded stays loaded."""
        with self.loading:
            return RecordedModel(snapshot, self.given, self.tracked if self.is_loaded else None)

    def _places(self) -> list[ModelConfig]:
        """Where the model may be, the likeliest place first."""
        record, root = self._snapshot.manifest.model, self._snapshot.root
        names = [self.given.name] if self.given.name else model_places(record, root)
        task = self._snapshot.manifest.task
        if is_function_name(task) and self.given.task != task:
            raise ConfigError(
                field="task",
                expected=f"{task}, the function of a user's own that the index was built with",
                found="none" if self.given.task == AUTO else self.given.task,
                remedy=f"read that function, and give `task` {task} to run it",
            )
        given = replace(self.given, task=task)
        recorded = [] if record.base is None or self.given.base is not None else base_places(record.base, root)
        places = []
        for name in names:
            plain_model = Path(name).is_dir() and not adapters_in(Path(name))
            bases = recorded if recorded and not plain_model else [self.given.base]
            places += [replace(given, name=name, base=base) for base in bases]
        return places

    def _factor_reader(self) -> FactorReader:
        self._snapshot.check_factors()  # before a native library reads them
        return FactorReader.of(self._snapshot.layout, self._snapshot.manifest.layers, self.tracked)

    @property
    def _known(self) -> dict[str, str]:
        """The `run_identity` of the model that the build tried; less, where an older gindex recorded less."""
        record = self._snapshot.manifest.model
        known = {"model": record.model, "tokenizer": record.tokenizer, "dtype": record.dtype}
        later = {"buffers": record.buffers, "code": record.code, "adapter": record.adapter, "runtime": record.runtime}
        return known | {name: of for name, of in later.items() if of is not None}

    def _check(self, name: str, loaded: LoadedModel) -> None:
        known = NO_ADAPTER | values_of(self._snapshot.manifest.model)
        for what, fingerprint in (NO_ADAPTER | loaded.identity).items():
            recorded = known.get(what, fingerprint)  # an older gindex recorded less
            if fingerprint != recorded:
                named = "base" if what == "model" and loaded.base is not None else what
                remedy = f"give that one with `{'base' if named == 'base' else 'model'}`"
                if TRANSFORMERS in (recorded, fingerprint):  # the same weights, run by other code
                    remedy = f"{'give' if fingerprint == TRANSFORMERS else 'leave out'} `trust_remote_code`"
                raise MismatchError(
                    field=name,
                    expected=f"the {named} {recorded[:12] or 'none'} that the index was built with",
                    found=fingerprint[:12] or "none",
                    remedy=remedy,
                )
