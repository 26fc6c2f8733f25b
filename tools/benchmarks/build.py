"""What a build costs beside training: gradients, whitening, projection and coding.

    python tools/data/fetch_model.py && python tools/data/fetch_foldoc.py .cache/corpora/foldoc.jsonl
    python tools/benchmarks/build.py --model .cache/models/SmolLM2-135M-Instruct --text .cache/corpora/foldoc.jsonl

Every row is one kind of work on the same batches of real text, in one process. The kinds take turns, and a table gives
the median of each and its ratio to the plain step: the forward and backward pass of a step of training, gradients of
weights included. Where bergson can be imported, it takes part. The fit of EK-FAC has a tool of its own: fit.py.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from gindex.config import ModelConfig, VectorConfig
from gindex.corpus.batches import TokenBatch, pad
from gindex.corpus.objectives import Objective
from gindex.curvature.basis import DenseBasis
from gindex.curvature.ekfac import LayerFactors
from gindex.curvature.ranks import ranks
from gindex.model.attention import ATTENTION
from gindex.model.layer_records import LayerRecord
from gindex.model.layers import TrackedLayer
from gindex.model.tracked_model import TrackedModel
from gindex.store.snapshot import projection_of
from gindex.vectors.codes import encode
from gindex.vectors.encoder import Encoder
from gindex.vectors.path import VectorPath
from gindex.vectors.projection import make_projection

BERGSON_SIDE = 16


def model_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark of a model on real text."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", type=Path, required=True, help="JSON lines with the field `text`")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    return parser


def token_stream(engine: TrackedModel, text: Path) -> np.ndarray:
    """Return the tokens of a corpus of JSON lines, one document after another."""
    entries = [json.loads(line)["text"] for line in text.read_text(encoding="utf-8").splitlines()[:3000]]
    return np.concatenate([np.array(ids, np.uint32) for ids in engine.loaded.tokenizer(entries)["input_ids"]])


def cut(stream: np.ndarray, length: int, documents: int, tokens: int) -> list[TokenBatch]:
    """Cut documents of one length from the stream, into batches of so many tokens."""
    each = max(1, tokens // length)
    parts = [Objective.counting(stream[n * length : (n + 1) * length]) for n in range(documents)]
    return [pad(parts[n : n + each], range(n, n + each)) for n in range(0, documents - each + 1, each)]


def make_path(engine: TrackedModel, fraction: float, damping: float, config: VectorConfig) -> VectorPath:
    """Return the whole path with made-up factors of the right shapes: what they hold costs nothing."""
    records, factors, bases = [], {}, {}
    for layer in engine.table.layers:
        R, P = ranks(layer, fraction)
        if layer.source not in bases:
            bases[layer.source] = DenseBasis(torch.linalg.qr(torch.randn(layer.inputs, R)).Q.to(engine.dtype))
        Q_S = DenseBasis(torch.linalg.qr(torch.randn(layer.outputs, P)).Q.to(engine.dtype))
        factors[layer.name] = LayerFactors(
            Q_A=bases[layer.source], Q_S=Q_S, Lambda=torch.rand(P, R), mean_eigenvalue=0.5
        )
        records.append(record_of(layer, R, P))
    projection = projection_of(records, config.projection, config.dimension, 0)
    return VectorPath(engine.table.layers, factors, damping, make_projection(projection, engine.device))


def record_of(layer: TrackedLayer, R: int, P: int) -> LayerRecord:
    """Describe a layer with its ranks."""
    return LayerRecord(
        name=layer.name,
        group=layer.group,
        source=layer.source,
        inputs=layer.inputs,
        outputs=layer.outputs,
        activation_rank=R,
        gradient_rank=P,
        mean_eigenvalue=0.5,
    )


def step(model: torch.nn.Module, batch: TokenBatch) -> None:
    """Run a forward and a backward pass with the loss that transformers computes."""
    tokens = torch.from_numpy(batch.tokens).to(next(model.parameters()).device)
    model(tokens, labels=tokens, use_cache=False).loss.backward()
    model.zero_grad(set_to_none=True)


@contextmanager
def gradients_of_weights(model: torch.nn.Module) -> Iterator[None]:
    """Take gradients of all weights, as training does."""
    model.requires_grad_(True)
    try:
        yield
    finally:
        model.requires_grad_(False)


@contextmanager
def gradients_of_embeddings(model: torch.nn.Module) -> Iterator[None]:
    """Let gradients flow down to the embeddings, and take none of weights."""
    handle = model.get_input_embeddings().register_forward_hook(lambda _m, _a, out: out.requires_grad_(True))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def plain_attention(model: torch.nn.Module) -> Iterator[None]:
    """Take the attention of transformers, where gindex takes its own."""
    own = model.config._attn_implementation
    if own == ATTENTION:
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def bergson_work(model: torch.nn.Module) -> Callable[[TokenBatch], None] | None:
    """Return what takes bergson's projected raw gradients of a batch, without its writing."""
    try:
        from bergson.collector.collector import fwd_bwd_factory
        from bergson.collector.gradient_collectors import GradientCollector
        from bergson.config import IndexConfig
        from bergson.gradients import GradientProcessor
    except ImportError:
        return None
    forward_backward = fwd_bwd_factory(SimpleNamespace(loss_reduction="sum", loss_fn="ce", label_smoothing=0.0))
    processor = GradientProcessor(projection_dim=BERGSON_SIDE)
    config = IndexConfig(run_path=tempfile.mkdtemp())

    def work(batch: TokenBatch) -> None:
        tokens = torch.from_numpy(batch.tokens)
        data = [None] * len(tokens)
        model.get_input_embeddings().requires_grad_(True)  # as its own workers do
        collector = GradientCollector(
            model=model.base_model, processor=processor, data=data, cfg=config, skip_index=True
        )
        with collector.with_batch(torch.ones_like(tokens, dtype=torch.bool)), plain_attention(model):
            losses = forward_backward(model, tokens, tokens, {})
        collector.process_batch(list(range(len(tokens))), losses=losses)
        model.requires_grad_(False)

    return work


def frozen_pass(engine: TrackedModel, batches: list[TokenBatch]) -> None:
    """Run forward and backward passes without gradients of weights."""
    with gradients_of_embeddings(engine.loaded.model), plain_attention(engine.loaded.model):
        for batch in batches:
            step(engine.loaded.model, batch)


def in_turns(kinds: dict[str, Callable[[], object]], rounds: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Time every kind of work once a round, after a round that doesn't count if `warm_up`."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(rounds + 1) if warm_up else range(1, rounds + 1):
        for name, work in kinds.items():
            gc.collect()
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def print_table(title: str, seconds: dict[str, list[float]], tokens: int) -> None:
    """Print medians, and the medians of the ratios within a round to the first two kinds."""
    first, second = list(seconds)[:2]
    print(f"\n{title}\n")
    print(f"| | tokens/s | / {first} | / {second} |\n|---|---|---|---|")
    for name, times in seconds.items():
        ratios = [statistics.median(t / b for t, b in zip(times, seconds[k], strict=True)) for k in (first, second)]
        print(f"| {name} | {tokens / statistics.median(times):,.0f} | {ratios[0]:.3f} | {ratios[1]:.3f} |", flush=True)


def measure_vectors(engine: TrackedModel, batches: list[TokenBatch], rounds: int, fractions: list[float]) -> None:
    """Compare one pass over the batches by every kind of work."""
    model, config = engine.loaded.model, VectorConfig()

    def plain() -> None:
        with gradients_of_weights(model), plain_attention(model):
            for batch in batches:
                step(model, batch)

    def gindex(path: VectorPath) -> Callable[[], None]:
        slices = tuple(path.projection.spec.slices.values())

        def work() -> None:
            for batch in batches:
                vectors = Encoder(model=engine, path=path).encode(batch).vectors
                encode(vectors, config.bits, slices)[0].cpu()

        return work

    kinds: dict[str, Callable[[], object]] = {"plain step": plain, "frozen pass": lambda: frozen_pass(engine, batches)}
    for fraction in fractions:
        kinds[f"gindex, leading {fraction:g}"] = gindex(make_path(engine, fraction, 3.0, config))
    bergson = bergson_work(model)
    if bergson is not None:
        kinds["bergson raw, 16 x 16"] = lambda: [bergson(batch) for batch in batches]
    tokens = sum(batch.tokens.size for batch in batches)
    shape = batches[0].tokens.shape
    print_table(f"Vectors, documents of {shape[1]} tokens, {shape[0]} a batch", in_turns(kinds, rounds), tokens)


def measure_formats(options: argparse.Namespace) -> None:
    """Compare the vectors of both number formats, of the same documents with the same made-up factors."""
    vectors = []
    for dtype in ("float32", "bfloat16"):
        engine = TrackedModel.load(ModelConfig(name=options.model, dtype=dtype, device=options.device))
        torch.manual_seed(0)
        path = make_path(engine, options.fractions[0], 3.0, VectorConfig())
        length = options.lengths[0]
        batches = cut(token_stream(engine, options.text), length, options.tokens // length, options.batch_tokens)
        vectors.append(torch.cat([Encoder(model=engine, path=path).encode(batch).vectors for batch in batches]).cpu())
    wide_ND, narrow_ND = vectors
    cosines_N = torch.nn.functional.cosine_similarity(wide_ND, narrow_ND)
    signs = float((wide_ND.sign() == narrow_ND.sign()).float().mean())
    above = torch.triu(torch.ones(len(wide_ND), len(wide_ND)), 1).bool()
    scores = torch.stack([(v @ v.T)[above] for v in vectors])
    print(
        f"\nbfloat16 against float32, {len(wide_ND)} documents of {length} tokens, leading {options.fractions[0]:g}\n"
    )
    print("| cosine of vectors, mean | least | equal signs | Pearson of scores |\n|---|---|---|---|")
    print(f"| {cosines_N.mean():.4f} | {cosines_N.min():.4f} | {signs:.4f} | {torch.corrcoef(scores)[0, 1]:.4f} |")


def main() -> None:
    """Parse the options and run every comparison."""
    parser = model_parser(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--tokens", type=int, default=4096, help="tokens a round")
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.125])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--formats", action="store_true", help="compare the vectors of both number formats instead")
    options = parser.parse_args()
    if options.formats:
        measure_formats(options)
        return
    engine = TrackedModel.load(ModelConfig(name=options.model, dtype=options.dtype, device=options.device))
    stream = token_stream(engine, options.text)
    print(f"{options.model}, {engine.dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    for length in options.lengths:
        if length > engine.loaded.max_tokens:
            print(f"{length} tokens are more than the model takes", file=sys.stderr)
            continue
        documents = max(1, options.tokens // length)
        batches = cut(stream, length, documents, options.batch_tokens)
        measure_vectors(engine, batches, options.rounds, options.fractions)


if __name__ == "__main__":
    main()
