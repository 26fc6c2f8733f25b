"""The choice among the layers that can be tracked: a default, and patterns of names that change it."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from gindex.errors import ConfigError

WIDE_HEAD = 8192
"""Widest output head in tokens that is tracked by default: the covariance of 32,000 outputs takes 4 GB in float32, and
its eigendecomposition hours on a CPU."""


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """Which layers to track. Patterns are those of shells, as `model.layers.0.*`; `*` stands for dots too.

    Attributes:
        track: Patterns of layers to track although the default or `untrack` leaves them out.
        untrack: Patterns of layers to leave out.
        names: The layers of an index, which alone are tracked, whatever the patterns say; None where there is none.
        trained: Names of the weights of an adapter, whose layers alone are tracked by default; None without one.
    """

    track: Sequence[str] = ()
    untrack: Sequence[str] = ()
    names: Sequence[str] | None = None
    trained: Set[str] | None = None

    def reason_against(self, name: str, outputs: int, head: bool, weights: Iterable[str] = ()) -> str | None:
        """Say why a layer is left out, None where it is not.

        Args:
            name: The layer; experts are one by their fused weight.
            outputs: O.
            head: Whether it is the model's output head.
            weights: Names of its weights.
        """
        if self.names is not None:
            recorded = name in self.names or f"{name}.0" in self.names  # the first expert of a fused weight
            return None if recorded else "not among the layers that the index was built with"
        if _matches(name, self.track):
            return None
        if _matches(name, self.untrack):
            return "left out by `untrack`"
        if self.trained is not None and not self.trained >= set(weights):
            return "of a layer of the base whose weight the adapter leaves as it is; `track` takes it"
        if head and outputs > WIDE_HEAD:
            return (
                f"an output head of {outputs:,} tokens, off by default for what its curvature costs; "
                f"`track` {name} takes it"
            )
        return None

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
