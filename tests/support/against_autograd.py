"""What gindex makes of a model folder, against plain autograd one document at a time.

Axes: N documents, T tokens, M positions that predict something, V vocabulary, O layer outputs, I layer inputs.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from objectives import pad_tokens
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.pytorch_utils import Conv1D

from gindex.config import ModelConfig
from gindex.corpus.batches import TokenBatch
from gindex.errors import GindexError
from gindex.lab.refine.gauss_newton import GaussNewton
from gindex.model.layer_choice import output_head
from gindex.model.tracked_model import TrackedModel
from gindex.vectors.influence import document_gradients

Gradients = dict[str, Tensor]
"""[O, I] by layer name, the bias last."""

TOLERANCE = 1e-5
"""Largest relative error that counts as right in float64. Sums of a few tokens agree to 1e-15 there; but many families
compute norms, rotations, routing or scans in float32 whatever their weights are in, and a batch then rounds otherwise
than a document alone (3e-7 at most). The faults that are looked for are of 1e-3 and more."""

NARROW_TOLERANCE = 1e-4
"""The same in float32, as builds run: sums of 300 terms round to 1e-6, and scans and routers grow it to 2e-5."""

HALF_COSINE = 0.7
"""Least cosine in bfloat16. Dense models have .99 and more; where a model chooses (experts, tokens to look at), random
weights leave it undecided, and 16 bits choose otherwise: .74 is the least seen."""

LENGTHS = (9, 2, 14, 5)
"""Tokens of the documents: more than the windows and chunks of the small models, and no two alike."""


@dataclass(frozen=True, kw_only=True)
class Right:
    """A folder whose gradients were compared.

    Attributes:
        error: Largest relative error of a document's gradient in a layer, of documents together and each alone.
        narrow_error: The same in float32, as builds run.
        product_error: Relative error of the Gauss-Newton product that `--refine` takes, in float32.
        half_cosine: Cosine of all gradients in bfloat16 with those in float64; None where that format is refused.
        layers: Layers that are tracked.
        body: Share of the weights, embeddings and output head apart, that is tracked.
    """

    error: float
    narrow_error: float
    product_error: float
    half_cosine: float | None
    layers: int
    body: float


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A folder that was refused before any work, with the message."""

    message: str


Outcome = Right | Refused


def load(folder: Path, allowed: Sequence[str] = (), dtype: str = "float32", track: Sequence[str] = ()) -> TrackedModel:
    """Load a folder as a build does, with what the caller allows, and track some layers whatever they cost."""
    allowances = dict.fromkeys(allowed, True)
    return TrackedModel.load(ModelConfig(name=str(folder), device="cpu", dtype=dtype, track=tuple(track), **allowances))


def own_head(model: nn.Module) -> list[str]:
    """Return the name of a model's output head where its weight is its own."""
    head, table = output_head(model), model.get_input_embeddings()
    if head is None or getattr(head, "weight", None) is table.weight:
        return []
    return [name for name, module in model.named_modules() if module is head]


def outcome_of(folder: Path, model: nn.Module, allowed: Sequence[str] = ()) -> Outcome:
    """Load a folder as a build does and compare document gradients; any error but gindex's own passes through.

    Args:
        folder: The folder.
        model: What it holds, as the reference has it.
        allowed: What the caller allows, by names of settings of the model.
    """
    track = own_head(model)
    try:
        engine = load(folder, allowed, track=track)
    except GindexError as error:
        return Refused(message=str(error))
    reference = wide(copy.deepcopy(model))
    names = [layer.name for layer in engine.table.layers]
    tokens = documents(engine.task.vocabulary)
    expected = [reference_gradients(reference, names, part) for part in tokens]
    narrow_error = error_of(engine, tokens, expected)
    product_error = product_error_of(engine, reference, tokens)
    half_cosine = half_cosine_of(partial(load, folder, allowed, "bfloat16", track), tokens, expected)
    wide(engine.loaded.model)
    return Right(
        error=error_of(engine, tokens, expected),
        narrow_error=narrow_error,
        product_error=product_error,
        half_cosine=half_cosine,
        layers=len(names),
        body=body_share(engine),
    )


def documents(vocabulary: int) -> list[np.ndarray]:
    """Return random documents."""
    generator = np.random.default_rng(0)
    return [generator.integers(1, min(vocabulary, 250), length).astype(np.uint32) for length in LENGTHS]


def wide(model: nn.Module) -> nn.Module:
    """Turn a model to float64; fused experts, which have no kernel for it, become plain ones."""
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")
    return model.double().eval()


def error_of(engine: TrackedModel, tokens: Sequence[np.ndarray], expected: Sequence[Gradients]) -> float:
    """Return the relative error of an engine's gradients of documents in one batch, and of each alone."""
    alone = [gradients(engine, [part])[0] for part in tokens]
    return max(relative_error(gradients(engine, tokens), expected), relative_error(alone, expected))


def gradients(engine: TrackedModel, tokens: Sequence[np.ndarray]) -> list[Gradients]:
    """Return the gradients of documents from one padded batch."""
    losses = partial(engine.task.losses, _batch(tokens))
    G_NW, space = document_gradients(engine.table.layers, len(tokens), losses)
    return [{name: G[n] for name, G in space.split(G_NW).items()} for n in range(len(tokens))]


def reference_gradients(model: nn.Module, names: Sequence[str], tokens: np.ndarray, first_target: int = 1) -> Gradients:
    """Return one document's gradients of its loss, summed from the first target on, in an unpadded pass."""
    targets = torch.from_numpy(tokens[first_target:].astype(np.int64))
    outputs_MV = _outputs(model, tokens)[first_target - 1 :]
    loss = nn.functional.cross_entropy(outputs_MV, targets, reduction="sum")
    return weight_gradients(model, names, loss)


def weight_gradients(model: nn.Module, names: Sequence[str], loss: Tensor, *, again: bool = False) -> Gradients:
    """Differentiate by the weights of layers, 0 where nothing comes; `again` keeps what can be differentiated again."""
    layers = {name: _parameters_of(model, name) for name in names}
    weights = list({id(p): p for parameters in layers.values() for p in parameters}.values())
    found = torch.autograd.grad(loss, weights, allow_unused=True, create_graph=again, retain_graph=True)
    gradients = {id(p): torch.zeros_like(p) if g is None else g for p, g in zip(weights, found, strict=True)}
    return {
        name: _joined_sides(model, name, [gradients[id(p)] for p in parameters]) for name, parameters in layers.items()
    }


def _parameters_of(model: nn.Module, name: str) -> list[nn.Parameter]:
    """The weight and bias of a layer, or of all experts of the fused weight that it belongs to."""
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    if name in modules:
        return _own(modules[name])
    whole = name.rpartition(".")[0]
    if whole in parameters:
        return [parameters[n] for n in (whole, f"{whole}_bias") if n in parameters]
    return [parameters[f"{whole}.weight"]]


def _joined_sides(model: nn.Module, name: str, parts: Sequence[Tensor]) -> Tensor:
    """The gradients of weight and bias as [O, I], the bias last."""
    module, kind = dict(model.named_modules()).get(name), type(_holder(model, name))
    if module is not None:
        weight, *biases = parts
        W_OI = weight.T if isinstance(module, Conv1D) else weight.flatten(1)
    else:
        expert, rows = int(name.rpartition(".")[2]), EXPERT_ROWS
        weight, *biases = [p.unflatten(0, (-1, rows)) if kind.__name__ == "DbrxExpertGLU" else p for p in parts]
        is_turned = kind.__name__ in TURNED or name.rpartition(".")[0].endswith(".w2")
        W_OI, biases = weight[expert].T if is_turned else weight[expert], [b[expert] for b in biases]
    return torch.cat([W_OI, *[b[:, None] for b in biases]], 1)


TURNED = ("GptOssExperts", "Llama4TextExperts")
"""Modules whose fused weights are [experts, inputs, outputs]."""

EXPERT_ROWS = 24
"""Rows of an expert in the weights of DBRX, which are [experts * rows, hidden size]."""


def _holder(model: nn.Module, name: str) -> nn.Module:
    """The module that holds the fused weight of an expert."""
    path = name.split(".")
    return next(m for end in range(len(path), -1, -1) if (m := dict(model.named_modules()).get(".".join(path[:end]))))


def product_error_of(engine: TrackedModel, model: nn.Module, tokens: Sequence[np.ndarray]) -> float:
    """Return the relative error of the Gauss-Newton matrix of documents times a random vector."""
    generator = torch.Generator().manual_seed(1)
    curvature = GaussNewton(engine.table.layers, engine.task, [_batch(tokens)])
    v_1W = torch.randn(1, curvature.space.size, generator=generator)
    v = {name: V_1OI[0].double() for name, V_1OI in curvature.space.split(v_1W).items()}
    found = {name: part[0] for name, part in curvature.space.split(curvature.product(v_1W)).items()}
    expected = {name: torch.zeros_like(V_OI) for name, V_OI in v.items()}
    for part in tokens:
        for name, one in _reference_product(model, v, part).items():
            expected[name] += one / len(tokens)
    return relative_error([found], [expected])


def _reference_product(model: nn.Module, v: Gradients, tokens: np.ndarray) -> Gradients:
    """Return J^T H J v of one document: J v as the derivative of <J^T u, v> by u, and H of the softmax."""
    with sdpa_kernel(SDPBackend.MATH):  # the only attention that can be differentiated twice
        outputs_MV = _outputs(model, tokens)
    u_MV = torch.zeros_like(outputs_MV, requires_grad=True)
    G = weight_gradients(model, list(v), (outputs_MV * u_MV).sum(), again=True)
    (tangent_MV,) = torch.autograd.grad(sum((G[name] * v[name]).sum() for name in v), u_MV, retain_graph=True)
    p_MV = outputs_MV.detach().softmax(-1)
    pulled_MV = p_MV * (tangent_MV - (p_MV * tangent_MV).sum(-1, keepdim=True))
    return weight_gradients(model, list(v), (outputs_MV * pulled_MV).sum())


def relative_error(found: Sequence[Gradients], expected: Sequence[Gradients]) -> float:
    """Return the largest error of a document's gradient in a layer, relative to the layer's largest gradient."""
    worst = 0.0
    for name in expected[0]:
        size = max(float(G[name].norm()) for G in expected)
        error = max(float((one[name] - other[name]).norm()) for one, other in zip(found, expected, strict=True))
        worst = max(worst, error / size if size else error)
    return worst


def half_cosine_of(
    make: Callable[[], TrackedModel], tokens: Sequence[np.ndarray], expected: Sequence[Gradients]
) -> float | None:
    """Return the cosine of all gradients in bfloat16, taken as one vector; None where that format is refused."""
    try:
        found = gradients(make(), tokens)
    except GindexError as error:
        if "`dtype` float32" in str(error):
            return None
        raise
    one, other = _joined(found, expected[0]), _joined(expected, expected[0])
    return float(one @ other / (one.norm() * other.norm()))


def _joined(gradients: Sequence[Gradients], names: Iterable[str]) -> Tensor:
    return torch.cat([G[name].double().flatten() for G in gradients for name in names])


def body_share(engine: TrackedModel) -> float:
    """Return the share of the weights that is tracked, embeddings and output head apart."""
    model = engine.loaded.model
    ends: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    apart = {id(p) for end in ends if end is not None for p in end.parameters()}
    tracked = {id(p) for layer in engine.table.layers for p in _own(layer.module)} - apart
    body = {id(p): p.numel() for p in model.parameters() if id(p) not in apart}
    return sum(body[identity] for identity in tracked) / sum(body.values())


def _own(module: nn.Module) -> list[nn.Parameter]:
    return [module.weight] + ([module.bias] if getattr(module, "bias", None) is not None else [])


def _outputs(model: nn.Module, tokens: np.ndarray) -> Tensor:
    """Return the logits [M, V] that predict a document's tokens after the first."""
    logits: Tensor = model(torch.from_numpy(tokens.astype(np.int64))[None], use_cache=False).logits[0, :-1]
    return logits.double()


def _batch(tokens: Sequence[np.ndarray]) -> TokenBatch:
    return pad_tokens(tokens, np.arange(len(tokens)), np.ones(len(tokens), np.int64))
