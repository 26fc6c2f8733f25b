"""A trial of which parameters can be expanded by document, and which arguments of their operations have documents.

An argument has rows of the batch where its first axis is so many times as long in a batch of so many times as many
documents. What has been taken for rows because its length happens to be a multiple of the documents' number is found
out in a batch of another size, and then all is tried again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from gindex.model.expansion import Expansion, OwnParameter, Use
from gindex.model.gradient_check import COARSE_GRADIENT_TOLERANCE, GRADIENT_TOLERANCE, Probe
from gindex.model.layers import affine_parameters
from gindex.model.quantisation import is_quantised_weight
from gindex.model.tolerances import relative_error

MOST_VALUES = 1 << 18
"""Most values of a parameter that each document has a copy of: 1 MiB in float32."""

TRIES = 4
"""How often all is tried again, at most; each time at least one more argument is known."""


def own_parameters(model: nn.Module, affine: Mapping[str, nn.Module]) -> Iterator[tuple[str, OwnParameter]]:
    """Yield the parameters that no affine layer has and no embedding, each by its first name.

    Args:
        model: The model.
        affine: Its affine layers by name.
    """
    taken = {id(parameter) for module in affine.values() for parameter in affine_parameters(module)}
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        holder = modules[name.rpartition(".")[0]]
        if id(parameter) not in taken and not isinstance(holder, nn.Embedding):
            yield name, OwnParameter(parameter, holder)


def reason_of_values(parameter: OwnParameter) -> str | None:
    """Return the reason against a parameter that shows before the model is run."""
    weight, kind = parameter.weight, type(parameter.holder).__name__
    if is_quantised_weight(weight) or not weight.is_floating_point():
        return f"its values are quantised ({kind} of {type(weight).__name__})"
    if weight.numel() > MOST_VALUES:
        return f"{weight.numel():,} values of {kind}, above the limit of {MOST_VALUES:,}"
    return None


def try_expansion(parameters: Mapping[str, OwnParameter], probe: Probe, documents: tuple[int, int]) -> dict[str, str]:
    """Find how parameters are expanded by document, and note it in them.

    Args:
        parameters: The parameters, by name.
        probe: Runs the model.
        documents: Two numbers of documents, the larger one first.

    Returns:
        The reasons against parameters that can not be expanded.
    """
    trial = _Trial()
    for _ in range(TRIES):
        trial.start()
        for count in documents:
            with torch.enable_grad(), Expansion(parameters, count, trial) as expansion:
                probe(count)
            unused = parameters.keys() - expansion.used
            trial.reasons |= {name: "not used in a forward pass" for name in sorted(unused)}
        if not trial.changed:
            break
    trial.refuse_unclear()
    for name, parameter in parameters.items():
        parameter.roles = trial.roles_of(name)
    return trial.reasons


class _Trial:
    """What is seen in passes over batches of two sizes.

    Attributes:
        reasons: Why parameters can not be expanded, by name; not yet true where all must be tried again.
        changed: Parameters of which an argument that was taken for rows is none, so that all must be tried again.
    """

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.changed: set[str] = set()
        self._constant: set[tuple[str, Use]] = set()
        self._multiples: dict[tuple[str, Use], set[int]] = {}
        self._others: set[tuple[str, Use]] = set()
        self._first = 0

    def start(self) -> None:
        """Begin with the larger batch."""
        self._first = 0
        self.changed.clear()
        self.reasons.clear()
        self._multiples.clear()
        self._others.clear()

    def refuse_unclear(self) -> None:
        """Refuse parameters of which one operation sometimes reads documents and sometimes does not."""
        for name in self.changed | {name for name, use in self._others if self._multiples[name, use]}:
            self.reasons.setdefault(name, "which of its operations read documents can not be told")

    def roles_of(self, name: str) -> dict[Use, bool]:
        """Which arguments of a parameter's operations have rows of the batch, and which have not."""
        constant = {use: False for other, use in self._constant if other == name}
        return constant | {use: bool(of) for (other, use), of in self._multiples.items() if other == name}

    def has_rows(self, names: Iterable[str], use: Use, size: int, rows: int) -> bool:
        """Say whether an argument has rows of the batch in it, as far as is known."""
        self._first = self._first or rows
        keys = [(name, use) for name in names]
        if not self._constant.isdisjoint(keys):
            return False
        multiple, rest = divmod(size, rows)
        if rows == self._first:
            for key in keys:
                self._multiples.setdefault(key, set())
                if rest:
                    self._others.add(key)
                else:
                    self._multiples[key].add(multiple)
            return not rest
        if not any(self._multiples.get(key) for key in keys):
            return False
        if not rest and all(multiple in self._multiples[key] for key in keys if self._multiples.get(key)):
            return True
        self._constant.update(keys)
        self.changed.update(names)
        return False

    def check(self, operation: Callable[[], Any], found: Any) -> None:
        """Compare what an operation has given by rows with what it gives.

        Raises:
            ValueError: They differ.
        """
        with torch.no_grad():
            expected, _ = tree_flatten(operation())
        for x, y in zip(tree_flatten(found)[0], expected, strict=True):
            if not isinstance(y, Tensor):
                continue
            tolerance = GRADIENT_TOLERANCE.get(y.dtype, COARSE_GRADIENT_TOLERANCE)
            if x.shape != y.shape or relative_error(x.detach(), y) > tolerance:
                raise ValueError("by document it gives something else")

    def fail(self, names: Iterable[str], operation: str, reason: str) -> None:
        """Take note of an operation that can not be done by rows."""
        for name in names:
            self.reasons.setdefault(name, f"{operation} of it can not be done by document ({reason})")
