"""What the fit of EK-FAC costs, phase by phase, beside the same fit by kronfluence and bergson.

    python tools/data/fetch_model.py && python tools/data/fetch_foldoc.py .cache/corpora/foldoc.jsonl
    python tools/benchmarks/fit.py --model .cache/models/SmolLM2-135M-Instruct --text .cache/corpora/foldoc.jsonl

Every row takes the same documents of real text in batches of the same size, in one process: covariances,
eigendecompositions and corrected eigenvalues of the same layers, with labels sampled from the model, factors written
to a folder. The kinds take turns, and a table gives medians and their ratios to the frozen pass: forward and backward
without gradients of weights. kronfluence comes with tools/setup.sh; bergson takes part where it can be imported.
"""

import copy
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from build import cut, frozen_pass, in_turns, model_parser, plain_attention, token_stream

from gindex.build.fit_phase import Fit
from gindex.config import ModelConfig
from gindex.corpus.batches import TokenBatch
from gindex.curvature.kinds import curvature_kind
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Phase, Silent
from gindex.store.layout import Layout


class PhaseTimes(Silent):
    """Keeps how long every phase took, in seconds."""

    def __init__(self) -> None:
        """Start without phases."""
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str) -> Iterator[Phase]:
        """Time a phase."""
        start = time.perf_counter()
        with super().phase(name, total, unit) as phase:
            yield phase
        self.seconds[name].append(time.perf_counter() - start)


def gindex_fit(engine: TrackedModel, batches: Sequence[TokenBatch], times: PhaseTimes) -> Callable[[], None]:
    """Return gindex's fit."""

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            layout = Layout(Path(folder))
            layout.eigenbases(0).parent.mkdir(parents=True)
            kind = curvature_kind("ekfac")
            fit = Fit(layout=layout, model=engine, batches=batches, kind=kind, seed=0, progress=times)
            fit.run([engine.table])

    return work


def kronfluence_fit(engine: TrackedModel, tokens_NT: np.ndarray, documents: int) -> Callable[[], None] | None:
    """Return kronfluence's fit of the same layers, in batches of so many documents."""
    try:
        import kronfluence
        from kronfluence.analyzer import Analyzer, prepare_model
        from kronfluence.arguments import FactorArguments
    except ImportError:
        return None
    from torch.nn.functional import cross_entropy
    from torch.utils.data import TensorDataset

    names = [layer.name for layer in engine.table.layers]

    class Language(kronfluence.Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> torch.Tensor:
            logits = model(batch[0], use_cache=False).logits[:, :-1].flatten(0, 1).float()
            labels = batch[0][:, 1:].flatten()
            if sample:
                with torch.no_grad():
                    labels = torch.multinomial(logits.softmax(1), 1)[:, 0]
            return cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return names

    task = Language()
    model = prepare_model(copy.deepcopy(engine.loaded.model), task)  # it changes its modules
    data = TensorDataset(torch.from_numpy(tokens_NT.astype(np.int64)))

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder, plain_attention(model):
            analyzer = Analyzer("fit", model, task, cpu=True, output_dir=folder, disable_tqdm=True)
            arguments = FactorArguments(strategy="ekfac")
            analyzer.fit_all_factors("factors", data, per_device_batch_size=documents, factor_args=arguments)

    return work


def bergson_fit(engine: TrackedModel, tokens_NT: np.ndarray, documents: int) -> Callable[[], None] | None:
    """Return bergson's fit of the same layers, in batches of so many documents."""
    try:
        from bergson.config import IndexConfig
        from bergson.config.config import HessianConfig
        from bergson.hessians.hessian_approximations import fit_factored_hessians
    except ImportError:
        return None
    from datasets import Dataset

    model = engine.loaded.model
    rows = tokens_NT.tolist()
    data = Dataset.from_dict({"input_ids": rows, "labels": rows, "length": [len(row) for row in rows]})
    batches = [list(range(n, min(n + documents, len(rows)))) for n in range(0, len(rows), documents)]

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder, plain_attention(model):
            config = IndexConfig(run_path=str(Path(folder) / "run"), projection_dim=0)
            config.partial_run_path.mkdir(parents=True)
            model.get_input_embeddings().requires_grad_(True)  # as its own workers do
            fit_factored_hessians(
                model, data, config, HessianConfig(method="kfac", ev_correction=True), target_modules=None,
                attention_cfgs={}, batches=batches, path=str(config.partial_run_path), do_eigendecomposition=True,
            )  # fmt: skip
            model.requires_grad_(False)

    return work


def main() -> None:
    """Parse the options, time every fit and print the table."""
    parser = model_parser(__doc__)
    parser.add_argument("--length", type=int, default=128, help="tokens of a document")
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--warm-up", action="store_true", help="run every kind once before the first round")
    parser.add_argument("--no-peers", action="store_true", help="gindex alone")
    options = parser.parse_args()
    engine = TrackedModel.load(ModelConfig(name=options.model, dtype=options.dtype, device=options.device))
    batches = cut(token_stream(engine, options.text), options.length, options.documents, options.batch_tokens)
    tokens_NT = np.concatenate([batch.tokens for batch in batches])
    each, times = len(batches[0].tokens), PhaseTimes()
    kinds: dict[str, Callable[[], object] | None] = {
        "frozen pass": lambda: frozen_pass(engine, batches),
        "gindex": gindex_fit(engine, batches, times),
    }
    if not options.no_peers:
        kinds["kronfluence"] = kronfluence_fit(engine, tokens_NT, each)
        kinds["bergson"] = bergson_fit(engine, tokens_NT, each)
    found = {name: work for name, work in kinds.items() if work is not None}
    seconds = in_turns(found, options.rounds, warm_up=options.warm_up)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{options.model}, {engine.dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{len(tokens_NT)} documents of {options.length} tokens, {each} a batch, {options.rounds} rounds\n")
    print("| EK-FAC fit | seconds | / frozen pass | / gindex |\n|---|---|---|---|")
    rows = {name: medians[name] for name in found}
    rows |= {f"gindex: {name}": statistics.median(values) for name, values in times.seconds.items()}
    for name, value in rows.items():
        ratios = f"{value / medians['frozen pass']:.2f} | {value / medians['gindex']:.2f}"
        print(f"| {name} | {value:.1f} | {ratios} |")


if __name__ == "__main__":
    main()
