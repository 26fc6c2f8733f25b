"""Gradients of documents by gindex and by bergson, of the same small models, against autograd; and what each tracks.

    python tools/benchmarks/peer_families.py

Models have random weights and are made from transformers' configurations, as in tests/families. Four documents of
unlike lengths make one padded batch. Either tool computes in float32; autograd takes one document at a time in float64.
bergson takes part where it can be imported (2.5.1 was; `pip install --no-deps bergson` and what it then asks for). It
gets its widest settings: biases included, fused experts named.

The cost of gindex's pass is told beside a plain training step, forward and backward by all weights: as processor time
of the small models in turn, and at published sizes as multiplications a token, reckoned without weights.

Prints the first table of docs/benchmarks/families.md.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # for `families`

from against_autograd import documents, gradients, load, reference_gradients, relative_error, wide
from families import FAMILIES
from model_coverage import DENSE, MODELS, layers_of, made, read_together
from objectives import pad_tokens
from word_tokenizers import word_tokenizer

from gindex.errors import GindexError
from gindex.model.layer_choice import output_head
from gindex.model.layer_costs import LayerCosts, reason_against_head
from gindex.model.losses import CausalLanguageModel
from gindex.vectors.influence import document_gradients

WANTED = (
    "Llama 3", "Qwen3", "Gemma 2", "GPT-2", "Falcon", "OPT", "Mixtral", "Qwen2-MoE", "Qwen3-MoE", "OLMoE",
    "DeepSeek-V2", "DeepSeek-V3", "GPT-OSS", "Granite MoE", "JetMoE", "Llama 4", "Mamba", "RWKV", "RecurrentGemma",
    "Qwen3-Next",
)  # fmt: skip
"""Families that are compared, where none are named."""

PUBLISHED = {
    "Llama 3": "Llama-3.1-8B", "Gemma 2": "Gemma-2-27B", "Mixtral": "Mixtral-8x7B", "Qwen2-MoE": "Qwen1.5-MoE-A2.7B",
    "Qwen3-MoE": "Qwen3-30B-A3B", "OLMoE": "OLMoE-1B-7B", "DeepSeek-V2": "DeepSeek-V2-Lite", "GPT-OSS": "GPT-OSS-20B",
    "JetMoE": "JetMoE-8B", "Llama 4": "Llama-4-Scout",
}  # fmt: skip
"""A model of published sizes of a family, by its name in model_coverage."""

ROUNDS = 9
"""Passes whose median time is told; gindex's and plain ones take turns."""

Gradients = dict[str, Tensor]
"""By the name of a parameter, of one document."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=WANTED, help="Names as in tests/support/families.py.")
    wanted = parser.parse_args().families
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(
        "| family | gindex tracks of the body | error | moves with the batch | training steps | at published sizes | "
        "bergson tracks of the body | error |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for family in (family for family in FAMILIES if family.name in wanted):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            family.model().save_pretrained(folder)
            word_tokenizer(begin=False).save_pretrained(folder)
            cells = *gindex_cells(folder), reckoned_cost(family.name), *bergson_cells(folder)
            print(f"| {family.name} | {' | '.join(cells)} |", flush=True)


def gindex_cells(folder: Path) -> tuple[str, str, str, str]:
    """Return what gindex makes of a model.

    Returns:
        The share of the body that it tracks, the largest relative error of a gradient, the largest change of one in
        another batch, and its time as a multiple of a training step's.
    """
    try:
        engine = load(folder)
    except GindexError as error:
        return "refused", str(error)[:60], "", ""
    names = [layer.name for layer in engine.table]
    tokens = documents(engine.task.vocabulary)
    found = gradients(engine, tokens)
    reference = wide(plain_model(folder))
    expected = [reference_gradients(reference, names, part) for part in tokens]
    alone = [gradients(engine, [part])[0] for part in tokens]
    change = relative_error(alone, [{name: G.double() for name, G in each.items()} for each in found])
    batch = pad_tokens([part.tolist() for part in tokens], range(len(tokens)), [1] * len(tokens))
    losses = partial(engine.task.losses, batch)
    plain = CausalLanguageModel(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    plain.model.requires_grad_(True)
    ratio = time_ratio(
        lambda: document_gradients(engine.table.layers, len(tokens), losses),
        lambda: plain.losses(batch).sum().backward(),
    )
    return f"{engine.table.share:.0%}", f"{relative_error(found, expected):.0e}", f"{change:.0e}", f"{ratio:.1f}"


def time_ratio(act: Callable[[], object], other: Callable[[], object]) -> float:
    """Return the processor time of an act as a multiple of another's: medians of rounds in which they take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for each, kept in zip((act, other), times, strict=True):
            start = time.process_time()
            each()
            kept.append(time.process_time() - start)
    return median(times[0]) / median(times[1])


def reckoned_cost(family: str) -> str:
    """Return the multiplications of a token's gradients in whole bases, as a multiple of a training step's.

    A training step multiplies each weight that a token meets three times, forward, and backward by inputs and by
    weights. gindex does the first two, rotates both sides of each tracked layer, and adds up outer products.
    """
    if (name := PUBLISHED.get(family)) is None:
        return ""
    if name in DENSE:
        model = made(*DENSE[name])
        layers = layers_of(model, read_together(model))
    else:
        kind, experts_per_token, sizes = MODELS[name]
        model = made(kind, sizes)
        layers = layers_of(model, {}, experts_per_token)
    heads = [layer for layer in layers if not layer.body]
    met = sum(layer.token_share * layer.parameters for layer in layers)
    if not heads:  # tied: its weight is multiplied by all the same
        met += sum(p.numel() for p in output_head(model).parameters())  # type: ignore[union-attr]
    tracked = [layer for layer in layers if layer.body or not reason_against_head(layer, layers)]
    return f"{(2 * met + LayerCosts.of(tracked).multiplications) / (3 * met):.1f}"


def bergson_cells(folder: Path) -> tuple[str, str]:
    """Return the same of bergson; "fails" and the error where it raises one."""
    try:
        import bergson  # noqa: F401
    except ImportError:
        return "not installed", ""
    model, reference = plain_model(folder), wide(plain_model(folder))
    tokens = documents(len(model.get_input_embeddings().weight))
    parameters = dict(reference.named_parameters())
    try:
        found = bergson_gradients(model, tokens)
    except Exception as error:  # whatever stops another tool is the row's content
        return "fails", type(error).__name__
    names = list(found[0])
    expected = [autograd_of(reference, names, part) for part in tokens]
    ends = {id(m.weight) for m in reference.modules() if isinstance(m, nn.Embedding)}
    ends.add(id(reference.get_output_embeddings().weight))  # type: ignore[operator]
    body = {name: p.numel() for name, p in parameters.items() if id(p) not in ends}
    tracked = sum(G.numel() for name, G in found[0].items() if name.split("[")[0] in body)
    return f"{tracked / sum(body.values()):.0%}", f"{relative_error(found, expected):.0e}"


def plain_model(folder: Path) -> nn.Module:
    """Return the model of a folder as transformers loads it."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def bergson_gradients(model: nn.Module, tokens: Sequence[np.ndarray]) -> list[Gradients]:
    """Return bergson's gradients of documents from one padded batch, by the names of parameters.

    An expert's part of a fused parameter is called `parameter[expert]`.
    """
    from bergson.collector.collector import fwd_bwd_factory
    from bergson.collector.gradient_collectors import GradientCollector
    from bergson.config import IndexConfig
    from bergson.data import pad_and_tensor
    from bergson.gradients import GradientProcessor
    from bergson.moe import expand_moe

    fused = [name for name, _ in model.named_modules() if fnmatchcase(name, "*.experts")]
    with suppress(ValueError):  # experts in another form, which it leaves out
        expand_moe(model, ",".join(fused))
    body: nn.Module = model.base_model  # type: ignore[assignment]
    prefix = next((f"{name}." for name, module in model.named_modules() if module is body and name), "")
    padded, labels, _, collected = pad_and_tensor([part.astype(int).tolist() for part in tokens])
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)  # type: ignore[operator]
    collector = GradientCollector(
        model=body,
        processor=GradientProcessor(include_bias=True),
        data=[None] * len(tokens),  # type: ignore[arg-type]
        cfg=IndexConfig(run_path=tempfile.mkdtemp(), include_bias=True),
        skip_index=True,
    )
    run: Callable[..., Tensor] = fwd_bwd_factory(
        SimpleNamespace(loss_reduction="sum", loss_fn="ce", label_smoothing=0.0)  # type: ignore[arg-type]
    )
    with collector.with_batch(collected):
        run(model, padded, labels, {})
    found: list[Gradients] = [{} for _ in tokens]
    for name, G_NW in collector.mod_grads.items():
        module = body.get_submodule(name)
        for n, G_W in enumerate(G_NW.double()):
            found[n] |= _by_parameter(prefix + name, module, G_W)
    return found


def _by_parameter(name: str, module: nn.Module, G_W: Tensor) -> Gradients:
    """Return the parts of a module's gradient, [outputs, inputs and bias], by parameter."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    experts, _, expert = name.partition(".expert_")
    turned = type(module).__name__ == "Conv1D" or getattr(module, "transposed", False)
    outputs, inputs = reversed(weight.shape) if turned else (weight.shape[0], weight[0].numel())
    G_OI = G_W.view(outputs, -1)
    W = G_OI[:, :inputs].T if turned else G_OI[:, :inputs]
    if expert:
        number, parameter = expert.split(".")
        names = f"{experts}.{parameter}[{number}]", f"{experts}.{parameter}_bias[{number}]"
    else:
        names = f"{name}.weight", f"{name}.bias"
    found = {names[0]: W.reshape(weight.shape)}
    return found | ({names[1]: G_OI[:, inputs]} if G_OI.shape[1] > inputs else {})


def autograd_of(model: nn.Module, names: Sequence[str], tokens: np.ndarray) -> Gradients:
    """Return one document's gradients of parameters, or of experts' parts of them."""
    ids_T = torch.from_numpy(tokens.astype(np.int64))
    parameters = dict(model.named_parameters())
    whole = list(dict.fromkeys(name.split("[")[0] for name in names))
    weights = [parameters[name].requires_grad_(True) for name in whole]
    logits_MV = model(ids_T[None], use_cache=False).logits[0, :-1].double()
    loss = nn.functional.cross_entropy(logits_MV, ids_T[1:], reduction="sum")
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    G = {name: torch.zeros_like(w) if g is None else g for name, w, g in zip(whole, weights, found, strict=True)}
    return {name: _part(G, name) for name in names}


def _part(G: Gradients, name: str) -> Tensor:
    parameter, _, expert = name.partition("[")
    return G[parameter][int(expert.rstrip("]"))] if expert else G[parameter]


if __name__ == "__main__":
    main()
