"""Candidates for tracking: what may be a layer, watched while the model is tried, and what speaks against it.

Axes: N documents, T tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gindex.model.convolution import Convolution, patch_geometry
from gindex.model.expansion import OwnParameter
from gindex.model.expansion_trial import own_parameters, reason_of_values, try_expansion
from gindex.model.gradient_check import COARSE_GRADIENT_TOLERANCE, GRADIENT_TOLERANCE, Probe
from gindex.model.inner_linears import ExpertLinears, InnerLinear, Pairs, opened, plain_forward
from gindex.model.isolation import own
from gindex.model.layer_choice import Candidate, LayerChoice, output_head
from gindex.model.layer_forms import copied, layer_of, owner_of, parts_of, reason_of_form, shared_parameters
from gindex.model.layer_kinds import LayerKinds
from gindex.model.layers import (
    TrackedLayer,
    affine_output,
    affine_shape,
    layer_input,
    part_count,
)
from gindex.model.owners import inner_linears
from gindex.model.tables import Table, lookups, reason_against_table
from gindex.model.tolerances import is_same_product, relative_error

PROBE_DOCUMENTS, FEWER_DOCUMENTS = 11, 2
"""Documents of the two batches that a model is tried on. With two numbers, an axis that only happens to have the length
of one is not taken for the document axis. With eleven documents, the tokens that are routed to an expert are not one of
each in order by chance: that has a probability of e^-11 at most."""

OF_PICTURES = "pictures alone reach it, of whose layers those are tracked that are linear or convolutions"
"""Reason against an embedding or a parameter of a vision tower."""


@dataclass
class _Calls:
    """The calls of one layer, by the number of documents in the batch.

    Attributes:
        count: How many there are.
        shapes: Shape of the last input.
        order: Place of the last call among all.
        inputs: Identities of the inputs in the last batch.
        documents_first: Whether the first axis is that of documents in all calls.
        graded: Whether all run with gradients.
        affine: Whether the first output is the affine map of the input.
        share: Share of the tokens that it reads.
    """

    count: dict[int, int] = field(default_factory=dict)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    order: int = 1 << 62
    inputs: list[tuple[int, int]] = field(default_factory=list)
    documents_first: bool = True
    graded: bool = True
    affine: bool = True
    share: float = 1.0


@dataclass(kw_only=True)
class Candidates:
    """The affine layers of a model, and the reasons against some of them. Experts are one by their fused weight.

    Attributes:
        copies: The first layer with the same weight and bias, by the names of the others.
        parameters: Parameters that may be layers by themselves, those of no affine layer that is called.
        alone: Modules that run in a batch of one document with pictures, and in no other.
    """

    modules: Mapping[str, nn.Module]
    shapes: Mapping[str, tuple[int, int]]
    reasons: dict[str, str]
    calls: dict[str, _Calls]
    embeddings: Mapping[str, nn.Embedding]
    copies: Mapping[str, str] = field(default_factory=dict)
    parameters: dict[str, OwnParameter] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    _inputs: list[Tensor] = field(default_factory=list)  # kept alive, so that an identity is never reused

    @classmethod
    def of(cls, model: nn.Module, choice: LayerChoice) -> "Candidates":
        """Find the affine layers, and the reasons against them that show without a pass."""
        modules = dict(model.named_modules()) | inner_linears(model)
        shapes = {name: shape for name, module in modules.items() if (shape := affine_shape(module)) is not None}
        modules = {name: modules[name] for name in shapes}
        shared, head = shared_parameters(model), output_head(model)
        kinds, reasons = LayerKinds(model, head), dict[str, str]()
        layers = [
            Candidate(
                name=name,
                kind=kinds.of(name),
                outputs=shapes[name][1],
                head=module is head,
                weights=[f"{name}.{weight}" for weight, _ in module.named_parameters(recurse=False)],
            )
            for name, module in modules.items()
        ]
        choice.check_kinds(layers)
        copies = dict(copied(modules, shared))
        for layer in layers:
            of_form = reason_of_form(layer.name, modules[layer.name], shared, copies)
            if reason := of_form or choice.reason_against(layer):
                reasons[layer.name] = reason
        embeddings = {name: module for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
        calls = {name: _Calls() for name in (*modules, *embeddings)}
        return cls(modules=modules, shapes=shapes, reasons=reasons, calls=calls, embeddings=embeddings, copies=copies)

    def watch(self, probe: Probe) -> None:
        """Run the two batches and record the calls of each layer."""
        for documents in (FEWER_DOCUMENTS, PROBE_DOCUMENTS):
            self._inputs.clear()
            handles = [
                module.register_forward_hook(own(self._watcher(name, documents, self.calls)), with_kwargs=True)
                for name, module in self._watched().items()
            ]
            handles += [
                module.owner.module.register_forward_hook(own(self._comparer(name)), with_kwargs=True)
                for name, module in self.modules.items()
                if isinstance(module, InnerLinear) and documents == PROBE_DOCUMENTS
            ]
            try:
                with torch.enable_grad(), opened(self.modules.values()):  # the weights are frozen: no graph is made
                    probe(documents)
            finally:
                for handle in handles:
                    handle.remove()

    def watch_alone(self, model: nn.Module, probe: Probe, alone_probe: Probe) -> None:
        """Run a document with pictures by itself, and record the calls of the layers that no other document reaches.

        Args:
            model: The model.
            probe: Runs documents without pictures.
            alone_probe: Runs the document.
        """
        with_text = _running(model, lambda: probe(FEWER_DOCUMENTS))
        self.alone = _running(model, lambda: alone_probe(1)) - with_text
        calls = {name: _Calls() for name in self.modules if name in self.alone}
        handles = [
            self.modules[name].register_forward_hook(own(self._watcher(name, 1, calls)), with_kwargs=True)
            for name in calls
        ]
        before = len(self._inputs)
        try:
            with torch.enable_grad():
                alone_probe(1)
        finally:
            for handle in handles:
                handle.remove()
        for name, seen in calls.items():
            seen.order -= before + len(self._inputs)  # pictures are read before the text
            self.calls[name] = seen

    def _watched(self) -> dict[str, nn.Module]:
        return {**self.modules, **self.embeddings}

    def _watcher(
        self, name: str, documents: int, calls: Mapping[str, _Calls]
    ) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], object], None]:
        module = self.modules.get(name)
        checked = not (module is None or isinstance(module, InnerLinear) or name in self.reasons)
        first = self.copies.get(name, name)
        seen, inputs = calls[first if first in calls else name], self._inputs
        checked = checked and documents != FEWER_DOCUMENTS

        def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            x: object = layer_input(args, kwargs)
            if not isinstance(x, Tensor):  # tables of positions may be called with a shape
                return
            seen.count[documents] = seen.count.get(documents, 0) + 1
            seen.shapes[documents] = tuple(x.shape)
            if isinstance(module, ExpertLinears):
                pairs: Pairs = args[1]
                seen.shapes[documents] = pairs.batch or pairs.tokens, *x.shape[1:]
                seen.share = len(x) / (pairs.tokens * module.experts)
            seen.order = len(inputs)
            seen.inputs = [*(seen.inputs if seen.count[documents] > 1 else []), (id(x), x._version)]
            seen.documents_first &= x.dim() > 1 and len(x) == documents
            seen.graded &= torch.is_grad_enabled()
            inputs.append(x)
            if checked and seen.count[documents] == 1:
                seen.affine &= _is_affine(module, x, output)

        return watch

    def _comparer(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], object], None]:
        """Return a hook that sees whether the owner of a stand-in computes with it what it computes by itself."""

        def compare(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
            with torch.no_grad():
                expected = _first(plain_forward(module)(*args, **kwargs))
            tolerance = GRADIENT_TOLERANCE.get(expected.dtype, COARSE_GRADIENT_TOLERANCE)
            self.calls[name].affine &= relative_error(_first(output), expected) <= tolerance

        return compare

    def layers(self) -> list[TrackedLayer]:
        """Return the layers without a reason against them, in forward order, and note the reasons of the others."""
        layers: list[TrackedLayer] = []
        sources: dict[tuple[tuple[tuple[int, int], ...], bool, str], str] = {}
        for name in sorted(self.modules, key=lambda n: self.calls[n].order):
            module, seen = self.modules[name], self.calls[name]
            alone = name in self.alone
            reason = self.reasons.get(name) or _reason_of_calls(module, seen, alone=alone)
            by_document = alone or _by_document(seen)
            beside = None if reason or by_document else self._beside(seen)
            if not reason and beside is None and not by_document:
                shape = list(seen.shapes[PROBE_DOCUMENTS])
                reason = (
                    f"its input mixes documents, or has another axis first ({shape} of {PROBE_DOCUMENTS} documents)"
                )
            if reason:
                self.reasons[name] = reason
                continue
            has_bias = module._parameters.get("bias") is not None
            cut = patch_geometry(module) if isinstance(module, Convolution) else ""
            source = sources.setdefault((tuple(seen.inputs), has_bias, cut), name)
            layer = layer_of(name, module, self.shapes[name], source, has_bias=has_bias)
            calls = max(seen.count.values())
            layer = replace(layer, beside=beside, token_share=calls * seen.share, calls=calls, alone=alone)
            copies = tuple(self.modules[copy] for copy, first in self.copies.items() if first == name)
            layer = replace(layer, copies=copies)
            layers += parts_of(layer, part_count(module))
        return layers

    def names_of(self, layers: Iterable[TrackedLayer]) -> Iterator[str]:
        """Yield the names that layers are chosen by; a table that is the output head's too has that one's as well."""
        named = {id(module): name for name, module in self.modules.items()}
        for layer in layers:
            yield layer.whole
            if isinstance(layer.module, Table):
                yield from (name for name, of in self.embeddings.items() if of.weight is layer.module.weight)
                if id(layer.module.head) in named:
                    yield named[id(layer.module.head)]

    def table_layers(self, model: nn.Module, choice: LayerChoice, probe: Probe) -> list[TrackedLayer]:
        """Return the lookup tables without a reason against them, and note the reasons of the others."""
        shared, head, tables = shared_parameters(model), output_head(model), dict[str, Table]()
        by_weight: dict[int, dict[str, nn.Embedding]] = {}
        for name, module in self.embeddings.items():
            by_weight.setdefault(id(module.weight), {})[name] = module
        for weight, those in by_weight.items():
            name, module = next(iter(those.items()))
            tied = head if head is not None and getattr(head, "weight", None) is module.weight else None
            names = [other.rpartition(".")[0] for other in shared[weight]]
            others = [of for of in names if of not in those and model.get_submodule(of) is not tied]
            reason = next(filter(None, map(reason_against_table, those.values())), None)
            if self.alone & those.keys():
                reason = OF_PICTURES
            if others:
                reason = f"shared by {', '.join(shared[weight])}"
            candidate = Candidate(
                name=name,
                outputs=module.num_embeddings,
                weights=[f"{name}.weight"],
                table=True,
                also=[of for of in names if of != name],
                tied=tied is not None,
            )
            if reason := reason or choice.reason_against(candidate):
                self.reasons[name] = reason
            else:
                run = [of for inner, of in those.items() if self.calls[inner].count]
                tables[name] = Table(run or [module], tied)
        return self._tried_tables(tables, probe)

    def _tried_tables(self, tables: Mapping[str, Table], probe: Probe) -> list[TrackedLayer]:
        """Return the tables whose entries are looked up by document, or by position alone."""
        layers, seen = [], lookups(tables.values(), probe, (FEWER_DOCUMENTS, PROBE_DOCUMENTS)) if tables else {}
        for name, table in tables.items():
            fewer, more = (seen[id(table), documents] for documents in (FEWER_DOCUMENTS, PROBE_DOCUMENTS))
            if len(fewer) != len(more) or not more:
                alike = "its entries are not looked up alike in batches of different sizes"
                self.reasons[name] = (
                    alike if fewer or more else "its entries are not looked up with gradients, or in a way of their own"
                )
                continue
            table.has_positions = fewer == more and all(len(shape) == 1 for shape in more)
            sizes = ((FEWER_DOCUMENTS, fewer), (PROBE_DOCUMENTS, more))
            by_document = all(len(s) > 1 and s[0] in (1, n) for n, shapes in sizes for s in shapes)
            if not (table.has_positions or by_document):
                self.reasons[name] = (
                    f"its lookups have another axis first ({list(more[0])} of {PROBE_DOCUMENTS} documents)"
                )
                continue
            layer = layer_of(name, table, (table.inputs, table.outputs), name, has_bias=False)
            layers.append(replace(layer, token_share=float(len(more)), calls=len(more)))
        return layers

    def parameter_layers(self, model: nn.Module, choice: LayerChoice, probe: Probe) -> list[TrackedLayer]:
        """Return the parameters that are layers by themselves, and note the reasons against others."""
        tables = {id(embedding.weight) for embedding in self.embeddings.values()}
        called = {
            name: module
            for name, module in self.modules.items()
            if self.calls[name].count and id(module._parameters.get("weight")) not in tables
        }
        self.parameters = dict(own_parameters(model, called))
        for name, parameter in self.parameters.items():
            holder = type(parameter.holder).__name__
            of_owner = self.reasons.get(owner_of(name))
            values = Candidate(name=name, outputs=parameter.weight.numel(), weights=[name], parameter_of=holder)
            if owner_of(name) in self.alone:
                self.reasons[name] = of_owner or OF_PICTURES
            elif reason := choice.reason_against(values):
                self.reasons[name] = of_owner or reason
            elif reason := reason_of_values(parameter):
                self.reasons[name] = reason
        chosen = {name: of for name, of in self.parameters.items() if name not in self.reasons}
        if chosen:
            with opened(self.modules.values()):
                self.reasons |= try_expansion(chosen, probe, (PROBE_DOCUMENTS, FEWER_DOCUMENTS))
        return [
            layer_of(name, parameter, (1, parameter.weight.numel()), name, has_bias=False)
            for name, parameter in chosen.items()
            if name not in self.reasons
        ]

    def _beside(self, seen: _Calls) -> nn.Module | None:
        """Find, for a layer that reads [N * T, I], an earlier one that reads [N, T, ...] in both batches.

        That may be an embedding, which reads [N, T], where no layer runs before.
        """
        rows = seen.shapes
        if any(len(shape) != 2 for shape in rows.values()):
            return None
        for name, module in self._watched().items():
            other, axes = self.calls[name], 2 if name in self.embeddings else 3
            ran = other.order < seen.order and other.shapes.keys() == rows.keys()
            if ran and all(len(s) >= axes and s[0] == n and n * s[1] == rows[n][0] for n, s in other.shapes.items()):
                return module
        return None


def _running(model: nn.Module, run: Callable[[], object]) -> set[str]:
    """Return the names of the modules that run in a pass."""
    found: set[str] = set()
    handles = [
        module.register_forward_hook(own(lambda *_seen, name=name: found.add(name)))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def _first(output: Any) -> Tensor:
    """Return the first tensor of numbers that a module returns."""
    return next(x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point())


def _by_document(seen: _Calls) -> bool:
    return all(len(shape) > 1 and shape[0] == documents for documents, shape in seen.shapes.items())


def _is_affine(module: nn.Module, x: Tensor, output: object) -> bool:
    """Say whether an output is the affine map of the input by the layer's weight and bias."""
    with torch.no_grad():
        expected = affine_output(module, x)
        return isinstance(output, Tensor) and output.shape == expected.shape and is_same_product(output, expected)


def _reason_of_calls(module: nn.Module, seen: _Calls, *, alone: bool) -> str | None:
    """Return the reason against a layer that its calls show."""
    if not seen.count:
        return "not called in a forward pass"
    if not alone and (len(set(seen.count.values())) > 1 or len(seen.count) == 1):
        return "not called alike in batches of different sizes"
    whole = part_count(module) is None and not isinstance(module, InnerLinear)
    if max(seen.count.values()) > 1 and not (whole and seen.documents_first and not alone):
        return f"called {max(seen.count.values())} times in one forward pass, on other axes than documents or in parts"
    if not seen.graded:
        return "run without gradients, as in torch.no_grad or a re-entrant checkpoint"
    if not seen.affine and isinstance(module, InnerLinear):
        return f"{type(module.owner.module).__name__} computes something else than its weights say"
    if not seen.affine:
        return f"its output is not the affine map of its weight and bias ({type(module).__name__}, or a hook on it)"
    return None
