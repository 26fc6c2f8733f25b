"""The choice among the layers that can be tracked: one of a few by kind, and patterns of names that change it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from gindex.config import ALL_LINEAR, ATTENTION, EVERYTHING, MLP
from gindex.errors import ConfigError
from gindex.model.layer_kinds import OTHER


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layer that may be chosen; experts are one by their fused weight.

    Attributes:
        name: Its name.
        outputs: O, or values of a parameter.
        kind: What it does in the model, see `layer_kinds`.
        head: Whether it is the model's output head.
        weights: Names of its weights.
        parameter_of: Class of the module that it is a parameter of, where it is no linear layer; else None.
        table: Whether it is a lookup table.
        also: Names of other modules that have the same weight; the table goes by any of them.
        tied: Whether the output head is one of those.
    """

    name: str
    outputs: int
    kind: str = OTHER
    head: bool = False
    weights: Sequence[str] = ()
    parameter_of: str | None = None
    table: bool = False
    also: Sequence[str] = ()
    tied: bool = False


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """Which layers to track. Patterns are those of shells, as `model.layers.0.*`; `*` stands for dots too.

    Attributes:
        layers: Kinds of layers to track: `ModelConfig.layers`.
        track: Patterns of layers to track although `layers`, the default or `untrack` leaves them out.
        untrack: Patterns of layers to leave out.
        names: The layers of an index, which alone are tracked, whatever the patterns say; None where there is none.
        trained: Names of the weights of an adapter, whose layers alone are tracked by default; None without one.
        tried: Whether the gradients of the layers of the index were right before, so that they need no trial.
    """

    layers: str = ALL_LINEAR
    track: Sequence[str] = ()
    untrack: Sequence[str] = ()
    names: Sequence[str] | None = None
    trained: Set[str] | None = None
    tried: bool = False

    def reason_against(self, layer: Candidate) -> str | None:
        """Say why a layer is left out, None where it is not."""
        name, called = layer.name, (layer.name, *layer.also)
        if self.names is not None:
            recorded = name in self.names or f"{name}.0" in self.names  # the first expert of a fused weight
            return None if recorded else "not among the layers that the index was built with"
        if any(_matches(of, self.track) for of in called):
            return None
        if any(_matches(of, self.untrack) for of in called):
            return "left out by `untrack`"
        if self.trained is not None and not self.trained >= set(layer.weights):
            return "of a layer of the base whose weight the adapter leaves as it is; `track` takes it"
        if self.layers == EVERYTHING:
            return None
        if layer.table:
            use = "an embedding, the output head's weight too" if layer.tied else "an embedding"
            return f"{use}, not of the body: `layers` everything or `track` {name} takes it"
        if layer.parameter_of is not None:
            return f"of {layer.parameter_of}, not a linear layer: `layers` everything takes it"
        if self.layers in (ATTENTION, MLP) and layer.kind != self.layers:
            return f"not of the {self.layers}, which `layers` asks for"
        return None

    def is_named(self, name: str) -> bool:
        """Whether a layer is taken whatever it costs: `track` or an index names it, or everything is tracked."""
        return self.names is not None or self.layers == EVERYTHING or _matches(name, self.track)

    def check_kinds(self, candidates: Iterable[Candidate]) -> None:
        """Check that a model has layers of the kind that is asked for.

        Raises:
            ConfigError: It has none.
        """
        if self.layers not in (ATTENTION, MLP) or self.names is not None:
            return
        kinds = Counter(layer.kind for layer in candidates)
        if not kinds[self.layers]:
            there = ", ".join(f"{count} of kind {kind}" for kind, count in kinds.most_common())
            raise ConfigError(
                field=f"`layers` {self.layers}",
                expected=f"a model with {self.layers} layers",
                found=f"none among its linear layers ({there})" if there else "no linear layers at all",
                remedy=f"use `layers` {ALL_LINEAR}, or name layers with `track`",
            )

    def check(self, affine: Iterable[str], tracked: Iterable[str], reasons: Mapping[str, str]) -> None:
        """Check that every pattern has an effect.

        Args:
            affine: Names of all layers that patterns can choose.
            tracked: Those that are tracked.
            reasons: Why the others are not.

        Raises:
            ConfigError: A pattern matches no layer, or `track` none that can be tracked.
        """
        if self.names is not None:
            return
        affine, tracked = list(affine), set(tracked)
        for setting, patterns in (("track", self.track), ("untrack", self.untrack)):
            for pattern in patterns:
                matched = [name for name in affine if fnmatchcase(name, pattern)]
                if not matched:
                    raise ConfigError(
                        field=f"`{setting}` {pattern}",
                        expected="the name of a layer or a pattern of names",
                        found="none that it matches",
                        remedy=f"the layers are {', '.join(affine[:3])}, ..., {affine[-1]}",
                    )
                if setting == "track" and not tracked & set(matched):
                    raise ConfigError(
                        field=f"`track` {pattern}",
                        expected="a layer that can be tracked",
                        found=f"{matched[0]}: {reasons[matched[0]]}",
                        remedy="leave the pattern out",
                    )


def output_head(model: nn.Module) -> nn.Module | None:
    """Return the layer that turns hidden states into logits over a vocabulary, None where a model names none."""
    named = getattr(model, "get_output_embeddings", None)
    return named() if callable(named) else None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
