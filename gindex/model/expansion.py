"""Expansion of parameters by document: the gradients of those that are no matrices, such as norms' weights and biases.

In a pass each document has a copy of the parameter of its own, [R, ...] for R rows of the batch, and the gradient that
comes to its copy is its document gradient. What a model does with the parameter is then done for each row with its
copy, as if the row were a batch of one: `torch.vmap` knows how, of sums and products as of a layer norm or a depthwise
convolution. Nothing of the model is written again. To observers such a parameter is a layer with the activation 1 and
one token a document, whose output gradient is the document gradient.

Operations are intercepted, while a pass runs forward, by their arguments. What comes of parameters alone (`1 + weight`,
`-exp(A_log)`) has copies too; an operation that also reads rows of the batch gives rows of the batch. Which arguments
have rows of the batch is found by trying (`expansion_trial`), as the length of an axis alone does not tell.

Axes: R rows, N documents, P values of a parameter.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from gindex.errors import TrackedLayerError

_present: ContextVar["Expansion | None"] = ContextVar("the expansion that this thread runs in", default=None)

_CASTS = ("to", "type", "type_as")
"""Operations that only take the number format and the device of their other arguments."""

_SIZED = ("expand", "repeat")
"""Operations whose second argument, or the first size of it, may be the number of rows."""


class OwnParameter(nn.Module):
    """A stand-in for a parameter that is a layer by itself.

    Attributes:
        weight: The parameter, of any shape with P values.
        roles: Which arguments of operations on it have rows of the batch; found by `expansion_trial`.
    """

    def __init__(self, weight: nn.Parameter, holder: nn.Module) -> None:
        """Share the parameter of a module."""
        super().__init__()
        self.weight = weight
        self.roles: dict[Use, bool] = {}
        self._holder = (holder,)  # no submodule

    @property
    def holder(self) -> nn.Module:
        """The module of the model that has the parameter."""
        return self._holder[0]


@dataclass(frozen=True)
class Use:
    """An argument of an operation that a parameter takes part in: the operation's name, and the argument's place."""

    operation: str
    place: int


class Judge(Protocol):
    """Says which arguments have rows of the batch."""

    def has_rows(self, names: Iterable[str], use: Use, size: int, rows: int) -> bool:
        """Say whether an argument whose first axis has a size has rows of the batch in it.

        Args:
            names: The parameters that take part.
            use: The argument.
            size: Its first axis.
            rows: R.
        """
        ...

    def check(self, operation: Callable[[], Any], found: Any) -> None:
        """Look at what an operation has given by rows; `operation` gives it without copies."""
        ...

    def fail(self, names: Iterable[str], operation: str, reason: str) -> None:
        """Take note of an operation that can not be done by rows."""
        ...


@dataclass(frozen=True, kw_only=True)
class KnownRoles:
    """What a trial has found, for passes over any documents."""

    parameters: Mapping[str, OwnParameter]

    def has_rows(self, names: Iterable[str], use: Use, size: int, rows: int) -> bool:
        """Say whether an argument has rows of the batch in it.

        Raises:
            TrackedLayerError: It may have, and has not been seen.
        """
        for name in names:
            known = self.parameters[name].roles.get(use)
            if known is not None and not (known and size % rows):
                return known
        if size % rows:
            return False
        raise _unlike(next(iter(names)), f"{use.operation} of an argument of {size} rows, unlike when it was tried")

    def check(self, operation: Callable[[], Any], found: Any) -> None:
        """Nothing is done twice."""

    def fail(self, names: Iterable[str], operation: str, reason: str) -> None:
        """Stop.

        Raises:
            TrackedLayerError: Always.
        """
        raise _unlike(next(iter(names)), f"{operation} that is not ({reason})")


def _unlike(name: str, found: str) -> TrackedLayerError:
    return TrackedLayerError(
        field=name,
        expected="operations that can be done for each document by itself, as when the model was tried",
        found=found,
        remedy=f"its gradients would be wrong: leave it out, as with `untrack` {name}",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Copies:
    """A parameter, or what comes of parameters alone, with its copies."""

    value: Tensor  # held, so that its identity is never reused
    copies: Tensor
    names: frozenset[str]


class Expansion(TorchFunctionMode):
    """Runs a model with a copy of some parameters for each row of the batch.

    Attributes:
        rows: R.
        used: Names of the parameters that have taken part in an operation.
    """

    def __init__(
        self,
        parameters: Mapping[str, OwnParameter],
        rows: int,
        judge: Judge,
        done: Callable[[str, Tensor], None] = lambda _name, _gradient: None,
    ) -> None:
        """Make the copies.

        Args:
            parameters: The parameters, by name.
            rows: R.
            judge: Says which arguments have rows of the batch.
            done: Called in the backward pass with a parameter's name and its gradient by row [R, P].
        """
        super().__init__()
        self.rows, self.used, self._judge, self._done = rows, set[str](), judge, done
        self._parameters = {name: parameter.weight for name, parameter in parameters.items()}
        self._known: dict[int, _Copies] = {}
        self._left: list[Token[Expansion | None]] = []
        for name, parameter in parameters.items():
            copies = parameter.weight.detach().expand(rows, *parameter.weight.shape).requires_grad_(True)
            copies.register_post_accumulate_grad_hook(self._taker(name))
            self._known[id(parameter.weight)] = _Copies(value=parameter.weight, copies=copies, names=frozenset([name]))

    def __enter__(self) -> "Expansion":
        """Intercept the operations of this thread."""
        self._left.append(_present.set(self))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        """Leave them be again."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _present.reset(self._left.pop())

    def drop(self, names: Iterable[str]) -> None:
        """Have no copies of some parameters any more."""
        dropped = frozenset(names)
        self._known = {key: of for key, of in self._known.items() if dropped.isdisjoint(of.names)}

    @contextmanager
    def moved(self, move: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
        """Run with other copies [R, ...] in the place of those of each parameter, made from them."""
        plain = dict(self._known)
        for key, of in plain.items():
            if len(of.names) == 1 and of.value is self._parameters.get(min(of.names)):
                self._known[key] = replace(of, copies=move(min(of.names), of.copies))
        try:
            yield
        finally:
            self._known = plain

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, by rows where a parameter takes part in it."""
        kwargs = kwargs or {}
        if any(id(x) in self._known for x in _tensors(args, kwargs)):
            return self._apply(func, args, kwargs)
        return func(*args, **kwargs)

    def _apply(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        name: str = getattr(func, "__name__", str(func))
        copies = {place: of for place, x in enumerate(leaves) if (of := self._known.get(id(x))) is not None}
        names = frozenset[str]().union(*(of.names for of in copies.values()))
        batched = [
            place
            for place, x in enumerate(leaves)
            if place not in copies
            and (size := _first_size(name, place, x)) is not None
            and self._judge.has_rows(sorted(names), Use(name, place), size, self.rows)
        ]
        self.used |= names
        if not batched:
            output = func(*args, **kwargs)
            tensors, _ = tree_flatten(output)
            if not any(isinstance(x, Tensor) for x in tensors):
                return output
        try:
            found = self._by_row(func, leaves, spec, copies, batched)
            if not batched:
                of_found, _ = tree_flatten(found)
                for value, rows in zip(tensors, of_found, strict=True):
                    self._known[id(value)] = _Copies(value=value, copies=rows, names=names)
                return output
            found = tree_map(lambda x_R: x_R.flatten(0, 1), found)
            if not name.endswith("_") or name.endswith("__"):  # what works in place has been done
                self._judge.check(lambda: func(*args, **kwargs), found)
        except TrackedLayerError:
            raise
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
            self._judge.fail(sorted(names), name, (str(error).splitlines() or [""])[0][:120])
            self.drop(names)
            return func(*args, **kwargs)
        return found

    def _by_row(
        self,
        func: Callable[..., Any],
        leaves: list[Any],
        spec: TreeSpec,
        copies: Mapping[int, _Copies],
        batched: Iterable[int],
    ) -> Any:
        """Do an operation for each row by itself, as a batch of one: [R, ...] of each of its outputs."""
        inputs, alone = {place: of.copies for place, of in copies.items()}, list(leaves)
        for place in batched:
            if isinstance(leaves[place], Tensor):
                inputs[place] = leaves[place].unflatten(0, (self.rows, -1))
            else:
                alone[place] = leaves[place] // self.rows

        def one(*given: Tensor) -> Any:
            for place, x in zip(inputs, given, strict=True):
                alone[place] = x
            args, kwargs = tree_unflatten(alone, spec)
            return func(*args, **kwargs)

        return torch.vmap(one)(*inputs.values())

    def _taker(self, name: str) -> Callable[[Tensor], None]:
        def take(copies: Tensor) -> None:
            gradient, copies.grad = copies.grad, None
            if gradient is not None:
                self._done(name, gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None])

        return take


def present_expansion() -> Expansion | None:
    """The expansion that this thread runs in."""
    return _present.get()


def again(expansion: Expansion | None) -> AbstractContextManager[object]:
    """Run in an expansion, in the backward pass too; there, a block that is checkpointed runs once more."""
    return nullcontext() if expansion is None or _present.get() is expansion else expansion


def _tensors(args: Iterable[Any], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    for x in (*args, *kwargs.values()):
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, tuple | list):
            yield from (y for y in x if isinstance(y, Tensor))


def _first_size(operation: str, place: int, x: Any) -> int | None:
    """What may be a number of rows in an argument: the first axis of a tensor, or the first size of `expand`."""
    if isinstance(x, nn.Parameter) or operation in _CASTS:
        return None
    if isinstance(x, Tensor):
        return x.shape[0] if x.dim() else None
    return x if operation in _SIZED and place == 1 and isinstance(x, int) and x > 0 else None
