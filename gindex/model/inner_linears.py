"""Linear maps that a model computes without a module of their own: experts by fused weights, routers, and others.

A pass needs a module to hook. So while `opened` lasts, the module that holds such a weight, its owner, calls a stand-in
in the place of the product: `ExpertLinears` for a weight [E, O, I] of all experts, `OwnLinear` for a weight [O, I] that
its owner multiplies by itself. Outside of it the model runs as it is, with its own implementation of experts. Numbers
are the same but for rounding, and every stand-in is checked against autograd through the model as it is
(`gradient_check`).

Axes: R tokens of all documents, K experts of a token, E experts, S pairs of a token and an expert, I inputs, O outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gindex.model.isolation import current


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of a token and an expert that it is routed to, ordered by expert and then by token.

    Attributes:
        rows: The token of each pair [S], a row among all R; on the CPU.
        sizes: Number of pairs of each expert, E of them.
        tokens: R.
        batch: Length of the first axis of a batch whose rows have R / `batch` tokens each, where it is known.
    """

    rows: Tensor
    sizes: tuple[int, ...]
    tokens: int
    batch: int | None = None


class InnerLinear(nn.Module):
    """A stand-in for products by a weight of another module, whose parameters it shares.

    Attributes:
        weight: The weight.
        bias: The bias, None where there is none.
        inputs: I, without a bias.
        outputs: O.
        owner: What runs it.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None, inputs: int, outputs: int) -> None:
        """Share the parameters."""
        super().__init__()
        self.weight, self.bias, self.inputs, self.outputs = weight, bias, inputs, outputs
        self.owner: Owner


class OwnLinear(InnerLinear):
    """A weight [O, I] that its owner multiplies by itself, as routers do, perhaps in another number format."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        """Share the parameters."""
        super().__init__(weight, bias, weight.shape[1], weight.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """The affine map of inputs [..., I], in their number format."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class ExpertLinears(InnerLinear):
    """The affine maps of all experts by one fused weight; or other maps of one weight that read different tokens.

    Attributes:
        experts: E.
        is_transposed: Whether the weight is [E, I, O], not [E, O, I]. Either may be stored with E and the axis behind
            it as one.
    """

    def __init__(
        self, weight: nn.Parameter, bias: nn.Parameter | None, experts: int, *, is_transposed: bool = False
    ) -> None:
        """Share the parameters."""
        sides = weight.numel() // experts // weight.shape[-1], weight.shape[-1]
        super().__init__(weight, bias, *(sides if is_transposed else reversed(sides)))
        self.experts, self.is_transposed = experts, is_transposed

    def by_expert(self, parameter: Tensor) -> Tensor:
        """The weight, its gradient or the like as [E, O, I], a view; a bias as [E, O]."""
        if parameter.dim() == 1 or parameter.shape == (self.experts, self.outputs):
            return parameter.view(self.experts, self.outputs)
        by_expert = parameter.view(self.experts, -1, parameter.shape[-1])
        return by_expert.mT if self.is_transposed else by_expert

    def forward(self, x_SI: Tensor, pairs: Pairs) -> Tensor:
        """The outputs [S, O] of pairs, each by its expert's weight."""
        weight_EOI = self.by_expert(self.weight)
        bias_EO = None if self.bias is None else self.by_expert(self.bias)
        outputs = [
            F.linear(x_MI.to(weight_EOI.dtype), weight_EOI[e], None if bias_EO is None else bias_EO[e])
            for e, x_MI in enumerate(x_SI.split(list(pairs.sizes)))
            if len(x_MI)
        ]
        return torch.cat(outputs) if outputs else x_SI.new_zeros(0, self.outputs, dtype=weight_EOI.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Owner:
    """A module whose products by its own weights are run by stand-ins, and how.

    Attributes:
        module: The owner.
        forward: What the owner computes, called with the owner, the stand-ins and the arguments.
        linears: Stand-ins by the name that their layers have, from the owner on.
        before: Another owner to open too, which runs before, and may have one before it.
        memory: What it leaves for another owner.
    """

    module: nn.Module
    forward: Callable[..., Any]
    linears: Mapping[str, InnerLinear] = field(default_factory=dict)
    before: "Owner | None" = None
    memory: list[Any] = field(default_factory=list)


@contextmanager
def opened(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Let the owners of stand-ins among some modules run them, in the present pass alone."""
    last = [module.owner for module in modules if isinstance(module, InnerLinear)]
    owners = {id(each.module): each for owner in last for each in reversed(list(_chain(owner)))}
    with ExitStack() as stack:
        for owner in owners.values():
            stack.enter_context(_replaced(owner))
        yield


def _chain(owner: Owner | None) -> Iterator[Owner]:
    while owner is not None:
        yield owner
        owner = owner.before


class _Opened:
    """The forward of an owner that runs its stand-ins in one pass, and runs as it is in any other."""

    def __init__(self, owner: Owner, plain: Callable[..., Any]) -> None:
        self._owner, self.plain, self.present = owner, plain, current()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current() is self.present:
            return self._owner.forward(self._owner, self.plain, *args, **kwargs)
        return self.plain(*args, **kwargs)


@contextmanager
def _replaced(owner: Owner) -> Iterator[None]:
    own = vars(owner.module).get("forward")
    if isinstance(own, _Opened) and own.present is current():  # by what goes on around, in the same pass
        yield
        return
    owner.module.forward = _Opened(owner, owner.module.forward)
    try:
        yield
    finally:
        del owner.module.forward
        if own is not None:
            owner.module.forward = own


def plain_forward(module: nn.Module) -> Callable[..., Any]:
    """What a module computes by itself, also while it is opened."""
    forward = vars(module).get("forward")
    return forward.plain if isinstance(forward, _Opened) else module.forward


class _OwnProducts(TorchFunctionMode):
    """Lets a stand-in run products and lookups by a weight, also by one that was cast to another number format."""

    def __init__(self, linear: InnerLinear) -> None:
        super().__init__()
        self._linear, self._weights = linear, [linear.weight]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (F.linear, F.embedding) and any(args[1] is weight for weight in self._weights):
            return self._linear(args[0])
        output = func(*args, **(kwargs or {}))
        if func in _CASTS and any(args[0] is weight for weight in self._weights):
            self._weights.append(output)
        return output


_CASTS = (Tensor.type, Tensor.to, Tensor.float)


def own_products(owner: Owner, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a module as it is but for its products by its own weight."""
    (linear,) = owner.linears.values()
    with _OwnProducts(linear):
        return plain(*args, **kwargs)
