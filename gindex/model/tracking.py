"""The layers to track, found by trying the model, and the reasons why others are not tracked.

A layer is tracked when it does what its gradient formula assumes: it is an affine map (of features, or of a
convolution's patches), keeps documents apart whenever it runs, and autograd's gradient of its weights on a few
documents is the one that the formula gives. A layer that is left out is named with its reason, never silently skipped.
The experts of a fused weight are tried and chosen together: few documents do not reach all of them.

Parameters that are no matrices, such as norms' weights, are tried where the choice asks for them: see `expansion`.

Axes: N documents, T tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace

import torch
from torch import nn

from gindex.errors import NothingToTrackError
from gindex.model.candidates import PROBE_DOCUMENTS, Candidates
from gindex.model.expansion import OwnParameter
from gindex.model.gradient_check import Probe, wrong_gradients
from gindex.model.isolation import alone, share_turns
from gindex.model.layer_choice import LayerChoice, output_head
from gindex.model.layer_costs import reason_against_head, structured_head
from gindex.model.layer_forms import owner_of, shared_parameters
from gindex.model.layer_records import UntrackedWeight
from gindex.model.layers import LayerTable, TrackedLayer, affine_parameters, with_sources
from gindex.model.sides import UNIT_VECTORS
from gindex.model.tables import Table


def track_layers(
    model: nn.Module,
    probe: Probe,
    choice: LayerChoice | None = None,
    positions: Set[int] | None = None,
    alone_probe: Probe | None = None,
) -> LayerTable:
    """Find the layers to track by looking at the model and trying it on a few documents.

    Args:
        model: The model; its weights are frozen here.
        probe: Runs one forward pass on as many documents as it is given and returns the model's outputs [N, ...],
            differentiable. The same number gives the same documents, which differ among themselves as far as possible.
        choice: Which of the layers that can be tracked are.
        positions: How many positions a document of the probe may have in a layer; None allows any number.
        alone_probe: Runs a document with pictures in a batch of its own, where the model reads these: layers that it
            alone reaches are found so, and all others are tried on it too.

    Raises:
        ConfigError: A pattern of the choice does nothing.
        NothingToTrackError: No layer can be tracked.
        ModelError: Autograd can't differentiate the model.
        NonFiniteError: The model's outputs are not finite.
    """
    share_turns(model)
    with alone(model):
        return _track(model, probe, choice or LayerChoice(), positions, alone_probe)


def _track(
    model: nn.Module, probe: Probe, choice: LayerChoice, positions: Set[int] | None, alone_probe: Probe | None
) -> LayerTable:
    model.requires_grad_(False)
    if any(isinstance(module, nn.TransformerEncoderLayer | nn.MultiheadAttention) for module in model.modules()):
        torch.backends.mha.set_fastpath_enabled(False)  # it passes by the modules where nothing needs a gradient
    candidates = Candidates.of(model, choice)
    candidates.watch(probe)
    if alone_probe is not None:
        candidates.watch_alone(model, probe, alone_probe)
    candidate_layers = [
        *candidates.table_layers(model, choice, probe),
        *candidates.layers(),
        *candidates.parameter_layers(model, choice, probe),
    ]
    in_float16 = any(parameter.dtype == torch.float16 for parameter in model.parameters())
    tried = [replace(layer, through_float16=in_float16) for layer in candidate_layers]
    if not choice.tried:
        together = [layer for layer in tried if not layer.alone]
        candidates.reasons |= wrong_gradients(together, probe, PROBE_DOCUMENTS, positions)
        if alone_probe is not None:
            right = [layer for layer in tried if layer.whole not in candidates.reasons]
            candidates.reasons |= wrong_gradients(right, alone_probe, 1)
    layers = _structured([layer for layer in tried if layer.whole not in candidates.reasons], model, choice)
    head = next((layer for layer in layers if layer.module is output_head(model)), None)
    by_default = head is not None and not head.body and not choice.is_named(head.name)
    if head is not None and by_default and (reason := reason_against_head(head, layers)):
        candidates.reasons[head.name] = reason
        layers = with_sources([layer for layer in layers if layer is not head])
    names = [*candidates.modules, *candidates.embeddings, *candidates.parameters]
    choice.check(names, candidates.names_of(layers), candidates.reasons)
    if not layers:
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(candidates.reasons.items())[:5])
        raise NothingToTrackError(
            field=type(model).__name__,
            expected="at least one Linear, Conv1D or convolution layer to track",
            found=f"none{f' ({listed})' if listed else ''}",
            remedy="use a model with such layers, and leave some of them in",
        )
    untracked = tuple(_untracked(model, layers, candidates.modules, candidates.reasons, choice.trained))
    return LayerTable(layers=layers, untracked=untracked)


def _structured(layers: Sequence[TrackedLayer], model: nn.Module, choice: LayerChoice) -> tuple[TrackedLayer, ...]:
    """Return the layers with all that follows from which they are: sources, sides, and whether they are of the body."""
    outside = _outside(model) if choice.trained is None else set()
    sourced = with_sources(layers)
    blocks = {layer.name: layer.input_block for layer in sourced}
    placed = [
        replace(layer, input_block=blocks[layer.source], body=outside.isdisjoint(_identities(layer)))
        for layer in sourced
    ]
    head, structured = output_head(model), [_with_unit_vectors(layer) for layer in placed]
    return tuple(structured_head(layer, structured) if layer.module is head else layer for layer in structured)


def _with_unit_vectors(layer: TrackedLayer) -> TrackedLayer:
    """Return a layer with the unit vectors as basis of the values that have nothing to do with their neighbours.

    Those are the tokens of a vocabulary, and the values of a parameter that is no matrix.
    """
    return replace(layer, output_block=UNIT_VECTORS) if isinstance(layer.module, OwnParameter | Table) else layer


def _identities(layer: TrackedLayer) -> set[int]:
    return {id(parameter) for parameter in affine_parameters(layer.module)}


def _outside(model: nn.Module) -> set[int]:
    """Return the identities of the parameters that are not of the body."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    head = output_head(model)
    return embeddings if head is None else embeddings | {id(parameter) for parameter in head.parameters()}


def _untracked(
    model: nn.Module,
    layers: Sequence[TrackedLayer],
    affine: Mapping[str, nn.Module],
    reasons: Mapping[str, str],
    trained: Set[str] | None,
) -> Iterator[UntrackedWeight]:
    tracked = {identity for layer in layers for identity in _identities(layer)}
    modules, outside = dict(model.named_modules()), _outside(model)
    layer_of = {id(p): name for name, module in affine.items() for p in affine_parameters(module)}
    for identity, names in shared_parameters(model).items():
        if identity in tracked:
            continue
        owner, layer = owner_of(names[0]), layer_of.get(identity, "")
        other = f"{type(modules[owner]).__name__} is not a Linear, Conv1D or convolution layer"
        is_table = isinstance(modules[owner], nn.Embedding)  # whose reason counts where the output head shares it
        found = (names[0], owner) if is_table else (names[0], layer, owner)
        reason = next((reasons[of] for of in found if of in reasons), other)
        if len(names) > 1 and not is_table:
            reason = f"shared by {', '.join(names)}"
        parameters = model.get_parameter(names[0]).numel()
        body = identity not in outside if trained is None else not trained.isdisjoint(names)
        yield UntrackedWeight(name=names[0], parameters=parameters, reason=reason, body=body)
