"""Does what an index stores predict what fine-tuning a language model does? Rows of the linear datamodelling score.

    python tools/data/fetch_foldoc.py .cache/corpora/foldoc.jsonl
    python tools/data/make_truth.py unseen .cache/truth/unseen
    python tools/benchmarks/truth_language.py .cache/truth/unseen

A small Llama is fine-tuned on random halves of 300 entries of FOLDOC that it has not seen; the losses of 40 other
entries are compared with sums of scores. Trainings are kept in FOLDER/lds: those of `gindex evaluate lds
fine-tuning:FOLDER --work FOLDER/lds`. The table goes to standard output, --json writes all numbers. All but the rows of
conjugate gradients take a few minutes; `--rows 'index|exact'` computes those alone whose name the expression finds.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from gindex_cli.progress import terminal_progress

from gindex.config import VectorConfig
from gindex.corpus.batches import TokenBatch, form_batches, pad
from gindex.lab.attribution import Attribution, coded_scores
from gindex.lab.evaluations.config import LdsConfig
from gindex.lab.evaluations.experiments import FINE_TUNING, load_experiment
from gindex.lab.evaluations.lds import MethodLds, ceiling, compare, draw_subsets
from gindex.lab.evaluations.work_folder import WorkFolder
from gindex.lab.refine.config import CgConfig
from gindex.lab.refine.gauss_newton import GaussNewton
from gindex.lab.refine.inverse import Damping, iterative_inverse
from gindex.lab.statistics import interval
from gindex.queries.tokens import tokenize_query
from gindex.store.vectors import code_bytes
from gindex.vectors.influence import document_gradients

BATCH = 8  # documents or queries of a batch
BATCH_TOKENS = 512  # of a batch of products
DIMENSION = 30720  # the index's usual one
SEEDS = 5  # projections whose scores' mean a row may be
REFINED = 16  # queries that are refined: the first ones

Row = tuple[str, int | None, Callable[[], np.ndarray]]
"""What is compared, its bytes a document, and its scores: [Q, N] of all or the first queries, or several [S, Q, N]."""


class Remembered:
    """The Gauss-Newton matrix of some documents; products are kept, since more iterations begin like fewer."""

    def __init__(self, curvature: GaussNewton) -> None:
        """Take the curvature."""
        self._curvature, self._kept = curvature, {}
        self.batches, self.batch_product = curvature.batches, curvature.batch_product

    def product(self, v_QW: torch.Tensor) -> torch.Tensor:
        """Return the matrix times each vector [Q, W]."""
        keys = [hashlib.sha256(v_W.numpy().tobytes()).digest() for v_W in v_QW]
        for key, v_1W in zip(keys, v_QW.split(1), strict=True):
            if key not in self._kept:
                self._kept[key] = self._curvature.product(v_1W)
        return torch.cat([self._kept[key] for key in keys])


class Methods:
    """Scores [Q, N] of the fine-tuned model's documents, made in many ways."""

    def __init__(self, experiment) -> None:
        """Take the experiment; its index is built where it isn't yet."""
        self.function = experiment.function
        self.opened = self.function.index(terminal_progress())
        self.engine = self.opened.model.tracked
        self.layers, self.task = self.engine.table.layers, self.engine.task
        self._products: dict[int, Remembered] = {}

    @cached_property
    def documents(self) -> list:
        """Batches of documents, in the order of the file."""
        count = self.function.documents
        return [self.batch(some) for some in np.split(np.arange(count), range(BATCH, count, BATCH))]

    def batch(self, some: np.ndarray) -> TokenBatch:
        """Return a batch of documents."""
        return pad([self.function.objectives[n] for n in some], some)

    @cached_property
    def queries(self) -> list:
        """Batches of queries."""
        found = [tokenize_query(query, self.engine.loaded) for query in self.function.queries]
        chunks = [found[start : start + BATCH] for start in range(0, len(found), BATCH)]
        return [pad([q.objective for q in some], np.arange(len(some))) for some in chunks]

    @cached_property
    def _fitted(self) -> dict:
        return {}

    def fitted(self, kind: str) -> Attribution:
        """Return the attribution with a kind of curvature, fitted once."""
        if kind not in self._fitted:
            self._fitted[kind] = Attribution.fit(self.task, self.layers, self.documents, kind)
        return self._fitted[kind]

    def exact(self, kind: str, damping: float) -> np.ndarray:
        """Return exact influence."""
        return self.fitted(kind).influence(self.queries, self.documents, damping).numpy().astype(np.float64)

    def vectors(self, config: VectorConfig, damping: float, kind: str = "ekfac", seed: int = 0) -> tuple:
        """Return the vectors of queries and documents, and the projection."""
        fitted = self.fitted(kind)
        path = fitted.vector_path(config, damping, seed)
        queries, documents = fitted.vectors(path, self.queries), fitted.vectors(path, self.documents)
        return queries.vectors, documents, path.projection.spec

    def projected(self, config: VectorConfig, damping: float, kind: str = "ekfac", normalise: str = "none"):
        """Return the scores of stored vectors."""
        queries_QD, documents, spec = self.vectors(config, damping, kind)
        scores = coded_scores(queries_QD, documents.vectors, config.bits, spec)
        if normalise == "relatif":
            scores = scores / documents.self_influence.sqrt()
        if normalise == "unit":
            scores = scores / documents.vectors.norm(dim=1)
        return scores.numpy().astype(np.float64)

    def second_level(self, damping: float, config: VectorConfig, mu: float) -> np.ndarray:
        """Scores of stored vectors with the second level, as `gindex reindex --transform second-level` has it."""
        queries_QD, documents, spec = self.vectors(config, damping)
        return coded_scores(queries_QD, documents.vectors, config.bits, spec, mu).numpy().astype(np.float64)

    def seeds(self, config: VectorConfig, damping: float) -> np.ndarray:
        """Return the scores [S, Q, N] of stored vectors by several projections."""
        found = []
        for seed in range(SEEDS):
            queries_QD, documents, spec = self.vectors(config, damping, seed=seed)
            found.append(coded_scores(queries_QD, documents.vectors, config.bits, spec).numpy())
        return np.stack(found).astype(np.float64)

    def refined(self, damping: float, iterations: int, count: int, queries: int = REFINED) -> np.ndarray:
        """Return influence of the first queries by conjugate gradients, preconditioned by EK-FAC.

        Args:
            damping: Damping, as a multiple of each layer's mean eigenvalue.
            iterations: Iterations, however small the residual becomes.
            count: Documents whose Gauss-Newton matrix it is, the first ones.
            queries: How many to refine, the first ones: a multiple of a batch, or all.
        """
        start, fitted = time.monotonic(), self.fitted("ekfac")
        config = CgConfig(iterations=iterations, tolerance=1e-6)
        damped = Damping(self.layers, fitted.factors.__getitem__, damping)
        inverse = iterative_inverse(self._curvature(count), damped, config, fitted.factored_inverse(damping))
        batches = self.queries[: -(-queries // BATCH)]
        found = [document_gradients(self.layers, len(b.ordinals), partial(self.task.losses, b)) for b in batches]
        solution = inverse.solve(torch.cat([gradients for gradients, _ in found]))
        influence_QN = fitted.influence_of(found[0][1].split(solution.x_QW), self.documents)
        residual, seconds = np.median(solution.residuals), time.monotonic() - start
        print(
            f"damping {damping:g}, {iterations} iterations, {count} documents: "
            f"residual {residual:.3f}, {seconds:.0f} s",
            file=sys.stderr,
        )
        return influence_QN.numpy().astype(np.float64)

    def _curvature(self, count: int) -> Remembered:
        if count not in self._products:
            lengths = [len(objective) for objective in self.function.objectives[:count]]
            groups = form_batches(np.arange(count), np.array(lengths), BATCH_TOKENS)
            batches = [self.batch(some) for some in groups]
            self._products[count] = Remembered(GaussNewton(self.layers, self.task, batches))
        return self._products[count]


def bytes_of(config: VectorConfig, groups: int) -> int:
    """Return the bytes of a document's vector with its scales."""
    return code_bytes(config.dimension, config.bits) + 4 * groups


def rows(methods: Methods) -> Iterator[Row]:
    """Yield what is compared."""
    groups, documents = len(methods.opened.manifest.projection.slices), methods.function.documents

    def projected(name: str, damping: float, kind: str = "ekfac", normalise: str = "none", **changes) -> Row:
        config = VectorConfig(**{"dimension": DIMENSION, "rank_fraction": 1.0} | changes)
        label = f"{name}, D={config.dimension:,}, {config.bits} bit"
        return label, bytes_of(config, groups), lambda: methods.projected(config, damping, kind, normalise)

    def seeds(damping: float, **changes) -> Row:
        config = VectorConfig(**{"dimension": DIMENSION, "rank_fraction": 1.0} | changes)
        label = f"EK-FAC, damping {damping:g}, D={config.dimension:,}, {config.bits} bit, mean of {SEEDS} projections"
        return label, bytes_of(config, groups), lambda: methods.seeds(config, damping)

    def second_level(mu: float, bits: int, dimension: int = DIMENSION) -> Row:
        config = VectorConfig(dimension=dimension, bits=bits, rank_fraction=1.0)
        label = f"EK-FAC, damping 10, second level mu {mu:g}, D={dimension:,}, {bits} bit"
        return label, bytes_of(config, groups), lambda: methods.second_level(10.0, config, mu)

    def exact(damping: float) -> Row:
        return f"exact EK-FAC, damping {damping:g}", None, lambda: methods.exact("ekfac", damping)

    def refined(damping: float, iterations: int, count: int = documents) -> Row:
        what = f"refined by CG, damping {damping:g}, {iterations} iterations, {count} documents, {REFINED} queries"
        return what, None, lambda: methods.refined(damping, iterations, count)

    usual, chosen = bytes_of(VectorConfig(), groups), methods.opened.manifest.damping.index
    kronecker = {"kind": "identity", "projection": "kronecker", "dimension": 256 * len(methods.layers)}
    yield exact(0.1)  # what the others are a share of
    yield f"the index as `gindex build` makes it, damping {chosen:g}", usual, lambda: methods.function.scores("index")
    yield seeds(10.0)
    yield projected("raw gradients", 1.0, kind="identity")
    yield projected("raw, Kronecker 16 x 16 a layer (what bergson stores)", 1.0, bits=16, **kronecker)
    yield "BM25", None, lambda: methods.function.scores("bm25")
    yield projected("EK-FAC, damping 10, leading half", 10.0, rank_fraction=0.5)
    yield projected("EK-FAC, damping 1, leading quarter", 1.0, rank_fraction=0.25)
    for damping in (0.01, 0.1, 1.0, 10.0, 100.0):
        yield projected(f"EK-FAC, damping {damping:g}", damping)
    for damping in (0.01, 1.0, 10.0):
        yield exact(damping)
    yield "exact raw gradients", None, lambda: methods.exact("identity", 1.0)
    for mu in (0.1, 1.0, 10.0):
        yield second_level(mu, 1)
    for bits in (4, 8, 16):
        yield projected("EK-FAC, damping 10", 10.0, bits=bits)
        for mu in (0.1, 1.0):
            yield second_level(mu, bits)
    for bits, dimension in ((4, 7680), (1, 16384), (1, 4096), (16, 1920), (2, 15360)):
        yield projected("EK-FAC, damping 10", 10.0, bits=bits, dimension=dimension)
    for bits, dimension in ((4, 7680), (16, 1920)):
        yield second_level(0.1, bits, dimension)
    yield projected("EK-FAC, damping 10, unit norm", 10.0, normalise="unit")
    yield projected("EK-FAC, damping 10, RelatIF", 10.0, normalise="relatif")
    yield projected("raw, Kronecker 16 x 16 a layer", 1.0, bits=1, **kronecker)
    yield "exact K-FAC, damping 0.1", None, lambda: methods.exact("kfac", 0.1)
    yield "exact diagonal, damping 0.1", None, lambda: methods.exact("diagonal", 0.1)
    for iterations in (0, 2, 5):
        yield refined(0.1, iterations)
    for iterations in (2, 5):
        yield refined(0.1, iterations, documents // 5)
    for iterations in (2, 5):
        yield refined(10.0, iterations)


def measure(scores: np.ndarray, subsets: list, outcomes_QM: np.ndarray) -> MethodLds:
    """Return the linear datamodelling score of the scores of all or the first queries, a mean over projections."""
    some = scores.reshape(-1, *scores.shape[-2:])
    found = [compare(scores_QN, subsets, outcomes_QM[: some.shape[1]]) for scores_QN in some]
    queries_Q, samples_B = (np.mean([getattr(one, name) for one in found], 0) for name in ("queries", "samples"))
    if len(found) > 1:
        print("projections:", ", ".join(f"{one.lds.mean:.4f}" for one in found), file=sys.stderr)
    return MethodLds(lds=interval(float(queries_Q.mean()), samples_B), queries=queries_Q, samples=samples_B)


def share(method: MethodLds, exact: MethodLds) -> str:
    """Return a method's LDS as a share of exact EK-FAC's on the same queries, with its interval."""
    ratio = interval(method.lds.mean / exact.lds.mean, method.samples / exact.samples)
    return f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--subsets", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--rows", type=re.compile, default=re.compile(""), help="regular expression of the rows to compute; all"
    )
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    arguments = parser.parse_args()
    config, start = LdsConfig(subsets=arguments.subsets, repeats=arguments.repeats), time.monotonic()
    experiment = load_experiment(f"{FINE_TUNING}{arguments.folder}")
    kept = WorkFolder(experiment, Path(arguments.folder) / "lds")
    subsets = draw_subsets(experiment.documents, config)
    seeds = [config.seed + repeat for repeat in range(config.repeats) for _ in subsets]
    losses_KQ = kept.losses(subsets * config.repeats, seeds, terminal_progress())
    outcomes_RQM = -losses_KQ.reshape(config.repeats, len(subsets), -1).swapaxes(1, 2)
    outcomes_QM = outcomes_RQM.mean(0)
    print(f"trained in {time.monotonic() - start:.0f} s; ceiling {ceiling(outcomes_RQM) or 1:.3f}", file=sys.stderr)
    methods, found = Methods(experiment), {}
    exact_QN = methods.exact("ekfac", 0.1)
    print("| scores | bytes | LDS | of exact |\n|---|---|---|---|")
    for name, size, method in rows(methods):
        if not arguments.rows.search(name):
            continue
        scores = method()
        found[name] = measure(scores, subsets, outcomes_QM)
        lds, exact = found[name].lds, measure(exact_QN[: scores.shape[-2]], subsets, outcomes_QM)
        cells = [name, f"{size:,}" if size else "", f"{lds.mean:.3f} [{lds.low:.3f}, {lds.high:.3f}]"]
        print("|", " | ".join([*cells, share(found[name], exact)]), "|", flush=True)
    print(f"{time.monotonic() - start:.0f} s in all", file=sys.stderr)
    if arguments.json:
        values = {name: vars(method.lds) for name, method in found.items()}
        arguments.json.write_text(json.dumps({"ceiling": ceiling(outcomes_RQM), "lds": values}, indent=1))


if __name__ == "__main__":
    main()
