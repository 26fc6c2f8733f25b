"""Scores against retraining: the tables of docs/benchmarks/truth.md, as Markdown on standard output.

    python tools/benchmarks/truth.py digits --work .cache/bench/truth-digits
    python tools/benchmarks/truth.py tabular --work .cache/bench/truth-tabular --kronfluence

100 random halves, five trainings on each, kept in --work. `ratio` is to exact EK-FAC at damping .1, from the same
bootstrap resamples. kronfluence comes with tools/setup.sh.
"""

import argparse
import copy
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gindex.config import VectorConfig
from gindex.lab.evaluations.config import LdsConfig
from gindex.lab.evaluations.experiments import load_experiment
from gindex.lab.evaluations.lds import Lds, evaluate_lds
from gindex.lab.evaluations.methods import TensorMethods
from gindex.lab.evaluations.training import Method, Scores
from gindex.lab.evaluations.work_folder import WorkFolder
from gindex.lab.refine.gauss_newton import DENSE_WEIGHTS
from gindex.lab.second_level.curvature import fit_second_level
from gindex.progress import Silent
from gindex.vectors.codes import decode, encode

REFERENCE = "exact EK-FAC, damping .1"
DAMPINGS = (0.01, 0.1, 1.0, 10.0)


def exact_methods(found: TensorMethods) -> Iterator[tuple[str, Method]]:
    """Yield influence without projection."""
    yield "identity (raw gradients)", partial(found.exact, "identity")
    for kind, name in (("diagonal", "diagonal"), ("kfac", "K-FAC"), ("ekfac", "EK-FAC")):
        for damping in DAMPINGS:
            yield f"exact {name}, damping {short(damping)}", partial(found.exact, kind, damping)
    for damping in DAMPINGS[:3]:
        yield f"EK-FAC refined by CG, damping {short(damping)}", partial(found.refined, damping)
    for damping in (0.1, 1.0, 10.0):
        for iterations in (2, 5, 10):
            name = f"EK-FAC refined by CG, damping {short(damping)}, {iterations} iterations"
            yield name, partial(found.refined, damping, iterations)
    if sum(layer.parameters for layer in found.layers) < DENSE_WEIGHTS:
        yield "exact Gauss-Newton, damping .1", partial(found.dense, 0.1)


def index_methods(found: TensorMethods, dimension: int) -> Iterator[tuple[str, Method]]:
    """Yield the scores of vectors: by damping, bits, dimension, second level and normalisation."""
    main = VectorConfig(dimension=dimension, bits=4)
    for damping in DAMPINGS:
        yield (
            f"index, D={dimension}, full, damping {short(damping)}",
            partial(found.projected, main, damping, coded=False),
        )
    for bits in (8, 4, 1):
        config = VectorConfig(dimension=dimension, bits=bits)
        yield f"index, D={dimension}, {bits} bits, damping 1", partial(found.projected, config, 1.0)
    for other in (dimension // 4, dimension // 2, dimension * 2):
        yield (
            f"index, D={other}, 4 bits, damping 1",
            partial(found.projected, VectorConfig(dimension=other, bits=4), 1.0),
        )
    for normalisation in ("unit", "relatif"):
        name = f"index, D={dimension}, full, damping 1, normalised: {normalisation}"
        yield name, partial(normalised, found, main, normalisation)
    yield f"raw gradients, D={dimension}, 4 bits", partial(found.projected, main, 1.0, "identity")
    yield f"TRAK-like, D={dimension}, full", partial(found.trak_like, main)


def second_level_methods(found: TensorMethods, dimension: int, documents: int) -> Iterator[tuple[str, Method]]:
    """Yield the scores of vectors with the second level, as an index applies it."""
    main = VectorConfig(dimension=dimension, bits=4)
    for mu in (0.03, 0.1, 0.3, 1.0):
        yield f"second level, D={dimension}, 4 bits, mu {short(mu)}", partial(found.projected, main, 1.0, mu=mu)
    for bits in (8, 2, 1):
        config = VectorConfig(dimension=dimension, bits=bits)
        yield f"second level, D={dimension}, {bits} bits, mu .1", partial(found.projected, config, 1.0, mu=0.1)
    for other in (dimension // 4, dimension // 2):
        config = VectorConfig(dimension=other, bits=4)
        yield f"second level, D={other}, 4 bits, mu .1", partial(found.projected, config, 1.0, mu=0.1)
    for damping in (0.1, 10.0):
        name = f"second level, D={dimension}, 4 bits, mu .1, damping {short(damping)}"
        yield name, partial(found.projected, main, damping, mu=0.1)
    for count in (documents // 10, documents * 3 // 10):
        name = f"second level, D={dimension}, 4 bits, mu .1, C from {count} documents"
        yield name, partial(second_level_of, found, main, count)


def second_level_of(found: TensorMethods, config: VectorConfig, count: int) -> Scores:
    """Score with the second level of the first documents' vectors, as they decode."""
    path = found.path(config, 1.0)
    slices = list(path.projection.spec.slices.values())
    queries_QD, vectors_ND = found.vectors(path)
    decoded_ND = decode(*encode(vectors_ND, config.bits, slices), config.bits, slices)
    level = fit_second_level(lambda: [decoded_ND[:count]], config.dimension, 0.1, count=count)
    return (level.apply(queries_QD, 2) @ decoded_ND.T).double().numpy()


def normalised(found: TensorMethods, config: VectorConfig, normalisation: str) -> Scores:
    """Divide scores by the document's norm: of its vector, or before projection."""
    path = found.path(config, 1.0)
    _, vectors_ND = found.vectors(path)
    scores_QN = found.projected(config, 1.0, coded=False)
    if normalisation == "unit":
        return scores_QN / vectors_ND.norm(dim=1).clamp(min=1e-30).numpy()
    return scores_QN / np.sqrt(found.self_influence("ekfac", 1.0)).clip(1e-30)


def kronfluence_methods(found: TensorMethods) -> Iterator[tuple[str, Method]]:
    """Yield kronfluence's own scores on the same model, documents and queries, at its default damping."""
    for strategy in ("ekfac", "kfac", "diagonal", "identity"):
        yield f"kronfluence, {strategy}", partial(kronfluence_scores, found, strategy)


def kronfluence_scores(found: TensorMethods, strategy: str) -> Scores:
    """Score with kronfluence; damping is its heuristic, .1 times the mean eigenvalue of a layer."""
    import kronfluence
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from torch.utils.data import TensorDataset

    class HalfSquares(kronfluence.Task):  # type: ignore[misc]
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> torch.Tensor:
            outputs, labels = model(batch[0])[:, 0], batch[1]
            if sample:
                with torch.no_grad():
                    labels = outputs + torch.randn_like(outputs)
            return (outputs - labels).square().sum() / 2

        def compute_measurement(self, batch: Any, model: Any) -> torch.Tensor:
            return self.compute_train_loss(batch, model)

    documents, queries = (
        TensorDataset(torch.cat([b.inputs for b in batches]), torch.cat([b.labels for b in batches]))  # type: ignore[misc]
        for batches in (found.documents, found.queries)
    )
    task = HalfSquares()
    with tempfile.TemporaryDirectory() as folder:
        model = prepare_model(copy.deepcopy(found.task.model), task)
        analyzer = Analyzer("truth", model, task, cpu=True, output_dir=folder, disable_tqdm=True)
        torch.manual_seed(0)
        analyzer.fit_all_factors(
            "factors", documents, per_device_batch_size=64, factor_args=FactorArguments(strategy=strategy)
        )
        analyzer.compute_pairwise_scores(
            "scores", "factors", query_dataset=queries, train_dataset=documents,
            per_device_query_batch_size=64, per_device_train_batch_size=64,
            score_args=ScoreArguments(damping_factor=None),
        )  # fmt: skip
        scores: Scores = analyzer.load_pairwise_scores("scores")["all_modules"].double().numpy()
    return scores


def short(value: float) -> str:
    """Write .1 for 0.1 and 10 for 10.0."""
    return f"{value:g}".lstrip("0")


def table(measured: Lds) -> str:
    """Return the table, in the order of the methods."""
    reference = measured.methods[REFERENCE].samples
    lines = ["| scores | LDS | 95% interval | ratio | its interval |", "|---|---|---|---|---|"]
    for name, method in measured.methods.items():
        low, high = np.quantile(method.samples / reference, (0.025, 0.975))
        ratio = method.lds.mean / measured.methods[REFERENCE].lds.mean
        lines.append(
            f"| {name} | {method.lds.mean:.3f} | {method.lds.low:.3f} to {method.lds.high:.3f} | {ratio:.2f} | "
            f"{low:.2f} to {high:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Train, score, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=("digits", "tabular"))
    parser.add_argument("--work", type=Path, required=True, help="Folder that keeps finished trainings.")
    parser.add_argument("--kronfluence", action="store_true", help="Run kronfluence beside, on tabular.")
    parser.add_argument(
        "--rows", type=re.compile, default=re.compile(""), help="Regular expression of the rows to compute, of all."
    )
    arguments = parser.parse_args()
    if arguments.kronfluence and arguments.experiment != "tabular":
        parser.error("--kronfluence: its task here is regression; use it with tabular")
    start = time.monotonic()
    experiment = load_experiment(arguments.experiment)
    kept, config = WorkFolder(experiment, arguments.work), LdsConfig()
    evaluate_lds(kept, {}, config, Silent())
    trained = time.monotonic()
    found = experiment.function.trained()
    dimension = 1024 if arguments.experiment == "digits" else 4096
    methods = dict(exact_methods(found))
    methods |= dict(index_methods(found, dimension))
    methods |= dict(second_level_methods(found, dimension, experiment.documents))
    if arguments.kronfluence:
        methods |= dict(kronfluence_methods(found))
    methods = {name: of for name, of in methods.items() if name == REFERENCE or arguments.rows.search(name)}
    measured = evaluate_lds(kept, methods, config, Silent())
    print(table(measured))
    print(
        f"\n{measured.documents:,} documents, {measured.queries} queries, {config.subsets} halves, {config.repeats} "
        f"trainings on each; ceiling {measured.ceiling:.3f}; trainings {trained - start:.0f} s, scores "
        f"{time.monotonic() - trained:.0f} s, {torch.get_num_threads()} threads"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
