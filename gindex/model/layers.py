"""Tracked layers: affine maps, of features or of a convolution's patches, that keep the document axis.

Each expert of a fused weight is a layer, of the tokens that are routed to it, and so is each group of a convolution, of
its channels. A parameter that is no matrix is a layer from the constant 1 to its values: see `expansion`.

Axes: N documents, T tokens, I layer inputs (with the appended 1 of a bias), O layer outputs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gindex.model.convolution import Convolution, convolved, is_affine, patch_shape
from gindex.model.expansion import OwnParameter
from gindex.model.inner_linears import ExpertLinears, InnerLinear
from gindex.model.layer_records import UntrackedWeight
from gindex.model.sides import Side
from gindex.model.tables import Table


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackedLayer:
    """One affine layer whose document gradients are taken.

    Attributes:
        name: Qualified module name.
        module: The layer itself; of an expert the `ExpertLinears` that it shares with the others, of a group of a
            convolution all of it.
        inputs: I, counting the appended 1 of a bias.
        outputs: O.
        has_bias: Whether activations get a 1 appended.
        group: Name of the layer group (transformer block) whose slice of the vector it shares.
        source: Name of the first tracked layer that reads the same activations (1 included); these share A and Q_A.
        input_block, output_block: Structure of the basis of each side (`Side.block`): None for one matrix; the size of
            the blocks of a block-diagonal one; 1, `UNIT_VECTORS`, for unit vectors. A layer whose side is as wide as
            its weight is long but hardly correlated, such as one that only multiplies each feature, says 1 here.
            Layers with one source have one structure of it.
        body: Whether it is of the model's body, which the output head is not.
        beside: Where the layer reads [N * T, I], the documents one behind the other: an affine layer that runs before
            it and reads [N, T, ...], which tells how many tokens each document has. None where its first axis is N.
        expert: Which expert of a fused weight, or group of a convolution, it is; None for any other layer.
        token_share: Share of the tokens that it reads: of an expert the mean of those of its fused weight; a layer that
            runs twice reads them twice.
        copies: Other modules of the model that have the same weight and bias, each as another use of them.
        calls: How often it runs in a pass: a block that is used several times has as many uses of its weights, whose
            gradient is the sum of all. Of a lookup table it is its lookups alone.
        alone: Whether only documents with pictures reach it, each in a batch of its own: all that it reads in a pass is
            that document's, however many rows; in other passes it does not run, and its gradient is zero.
        shares_factors: Whether an expert shares all factors with others of its fused weight. Its source is then that,
            though it reads tokens of its own.
        through_float16: Whether gradients may pass float16 on their way to it, as the model has weights in it.
    """

    name: str
    module: nn.Module
    inputs: int
    outputs: int
    has_bias: bool
    group: str
    source: str
    input_block: int | None = None
    output_block: int | None = None
    body: bool = True
    beside: nn.Module | None = None
    expert: int | None = None
    token_share: float = 1.0
    copies: tuple[nn.Module, ...] = ()
    calls: int = 1
    shares_factors: bool = False
    through_float16: bool = False
    alone: bool = False

    @property
    def reads(self) -> str:
        """What names the activations that the layer reads: they are the same for layers with the same name."""
        return self.source if self.expert is None else self.name

    @property
    def factors(self) -> str:
        """Name under which its S and Lambda are kept; A is kept under its source."""
        return self.whole if self.shares_factors else self.name

    def sharing(self) -> "TrackedLayer":
        """The same expert as one that shares factors."""
        return replace(self, source=self.whole, shares_factors=True)

    @property
    def whole(self) -> str:
        """Name of the fused weight or convolution that it is of, which all choices are about; else of the layer."""
        return self.name if self.expert is None else self.name.rpartition(".")[0]

    @property
    def is_repeated(self) -> bool:
        """Whether it may have several uses in a pass, which are observed together at its end."""
        return self.calls > 1 or isinstance(self.module, Table)

    @property
    def place(self) -> nn.Module:
        """The module of the model that runs the layer."""
        if isinstance(self.module, OwnParameter):
            return self.module.holder
        return self.module.owner.module if isinstance(self.module, InnerLinear) else self.module

    @property
    def parameters(self) -> int:
        """Number of weights, bias included."""
        return self.inputs * self.outputs

    @property
    def input_side(self) -> Side:
        """The side of its activations, with the structure of Q_A."""
        return Side(self.inputs, self.input_block)

    @property
    def output_side(self) -> Side:
        """The side of its pseudo-gradients, with the structure of Q_S."""
        return Side(self.outputs, self.output_block)


@dataclass(frozen=True, kw_only=True)
class LayerTable(Sequence[TrackedLayer]):
    """The tracked layers in forward order, as a sequence of them, and every weight that is not tracked.

    The body of a model is all of it but embeddings (`nn.Embedding`, heads that are tied to them included) and the
    output head (`get_output_embeddings`, where a model has that). With an adapter it is the adapter's weights and what
    is tracked of the base.

    Attributes:
        layers: The tracked layers.
        untracked: The other weights.
    """

    layers: tuple[TrackedLayer, ...]
    untracked: tuple[UntrackedWeight, ...]

    @overload
    def __getitem__(self, index: int) -> TrackedLayer: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[TrackedLayer, ...]: ...

    def __getitem__(self, index: int | slice) -> TrackedLayer | tuple[TrackedLayer, ...]:
        """Return one tracked layer, or some of them."""
        return self.layers[index]

    def __len__(self) -> int:
        """Return the number of tracked layers."""
        return len(self.layers)

    def __iter__(self) -> Iterator[TrackedLayer]:
        """Iterate over the tracked layers."""
        return iter(self.layers)

    def tracks(self, weight: Tensor) -> bool:
        """Whether a weight is one of a tracked layer."""
        return any(weight is own for layer in self.layers for own in affine_parameters(layer.module))

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the layer groups in forward order."""
        return tuple(dict.fromkeys(layer.group for layer in self.layers))

    def by_group(self) -> list[list[TrackedLayer]]:
        """The tracked layers of each group, groups in forward order."""
        return [[layer for layer in self.layers if layer.group == group] for group in self.groups]

    @property
    def parameters(self) -> int:
        """Weights of the whole model."""
        return sum(layer.parameters for layer in self.layers) + sum(weight.parameters for weight in self.untracked)

    @property
    def body(self) -> int:
        """Weights of the body."""
        return self.tracked_body + sum(weight.parameters for weight in self.untracked if weight.body)

    @property
    def tracked_body(self) -> int:
        """Tracked weights of the body."""
        return sum(layer.parameters for layer in self.layers if layer.body)

    @property
    def share(self) -> float:
        """Share of the body's weights that is tracked, in [0, 1]."""
        return self.tracked_body / self.body if self.body else 0.0


def with_sources(layers: Sequence[TrackedLayer]) -> tuple[TrackedLayer, ...]:
    """Return a selection of layers, each with the first of them that reads the same activations as its source."""
    first: dict[str, str] = {}
    for layer in layers:
        first.setdefault(layer.reads, layer.name)
    return tuple(layer if layer.shares_factors else replace(layer, source=first[layer.reads]) for layer in layers)


def layer_input(args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Tensor:
    """Return the one input of an affine layer, however it was passed."""
    return args[0] if args else next(iter(kwargs.values()))


def affine_shape(module: nn.Module) -> tuple[int, int] | None:
    """Return (I without bias, O) of an affine layer, None for any other module. A convolution reads patches.

    Of experts and groups it is the shape of one.
    """
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    if isinstance(module, InnerLinear):
        return module.inputs, module.outputs
    if isinstance(module, Convolution) and is_affine(module):
        return patch_shape(module)
    return None


def part_count(module: nn.Module) -> int | None:
    """Return of how many affine maps a module is, each a layer: experts or groups. None where it is one."""
    if isinstance(module, ExpertLinears):
        return module.experts
    return module.groups if isinstance(module, Convolution) and module.groups > 1 else None


def affine_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the weight of an affine layer and its bias, if it has one; no others that a subclass may have."""
    own = (module._parameters.get(name) for name in ("weight", "bias"))
    return [parameter for parameter in own if parameter is not None]


def affine_output(module: nn.Module, x: Tensor) -> Tensor:
    """Return the affine map of an input by a layer's weight and bias, whatever the module itself computes."""
    weight, *bias = affine_parameters(module)
    x = x.to(weight.dtype)  # some layers read what their model keeps in float32, and narrow it themselves
    if isinstance(module, Convolution):
        return convolved(module, x, weight, bias[0] if bias else None)
    return nn.functional.linear(x, weight.T if isinstance(module, Conv1D) else weight, bias[0] if bias else None)
