"""Does what an index stores predict what fine-tuning a language model does? Rows of the linear datamodelling score.

    python tools/fetch_foldoc.py .cache/corpora/foldoc.jsonl
    python tools/make_truth.py unseen .cache/truth/unseen
    python tools/bench_truth_lm.py .cache/truth/unseen

A small Llama is fine-tuned on random halves of 300 entries of FOLDOC that it has not seen; the losses of 40 other
entries are compared with sums of scores. Trainings are kept in FOLDER/lds: those of `gindex evaluate lds
fine-tuning:FOLDER --work FOLDER/lds`. The table goes to standard output, --json writes all numbers.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from gindex_cli.progress import terminal_progress

from gindex.attribution import Attribution, coded_scores
from gindex.config import LdsConfig, VectorConfig
from gindex.corpus.batches import pad
from gindex.curvature.second_level import fit_second_level
from gindex.engine import Engine
from gindex.evaluate.kept import Kept
from gindex.evaluate.lds import MethodLds, ceiling, compare, draw_subsets
from gindex.evaluate.named import FINE_TUNING, load_experiment
from gindex.evaluate.statistics import interval
from gindex.gradient.codes import code_bytes
from gindex.search.queries import first_targets, tokenize_query

BATCH = 8  # documents of a batch
DIMENSION = 30720  # the index's usual one
EXACT = "exact EK-FAC, damping 0.1"

Row = tuple[str, int | None, Callable[[], np.ndarray]]
"""What is compared, its bytes a document, and its scores [Q, N]."""


class Methods:
    """Scores [Q, N] of the fine-tuned model's documents, made in many ways."""

    def __init__(self, experiment) -> None:
        """Take the experiment; its index is built where it isn't yet."""
        self.function = experiment.function
        self.opened = self.function.index(terminal_progress())
        self.engine = Engine.load(self.opened.model_config)
        self.layers, self.task = self.engine.table.layers, self.engine.task

    @cached_property
    def documents(self) -> list:
        """Batches of documents, in the order of the file."""
        tokens = [self.engine.loaded.tokenizer(text).input_ids for text in self.function.texts]
        ordinals = np.arange(len(tokens))
        chunks = [ordinals[start : start + BATCH] for start in range(0, len(tokens), BATCH)]
        return [pad([tokens[n] for n in some], some, np.ones(len(some), np.int64)) for some in chunks]

    @cached_property
    def queries(self) -> list:
        """Batches of queries."""
        found = [tokenize_query(query, self.engine.loaded) for query in self.function.queries]
        chunks = [found[start : start + BATCH] for start in range(0, len(found), BATCH)]
        return [pad([q.ids for q in some], np.arange(len(some)), first_targets(some)) for some in chunks]

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

    def vectors(self, config: VectorConfig, damping: float, kind: str = "ekfac") -> tuple:
        """Return the vectors of queries and documents, and the projection."""
        fitted = self.fitted(kind)
        path = fitted.vector_path(config, damping)
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

    def second_level(self, damping: float, mu: float, count: int | None, bits: int = 1) -> np.ndarray:
        """Return the scores of vectors that the second level was applied to before they were coded.

        Args:
            damping: Damping of the vectors.
            mu: Of the second level.
            count: Documents in C; None takes all.
            bits: Bits a coordinate.
        """
        config = VectorConfig(dimension=DIMENSION, bits=bits, rank_fraction=1.0)
        queries_QD, documents, spec = self.vectors(config, damping)
        some = documents.vectors[:count]
        level = fit_second_level(lambda: [some], DIMENSION, mu, rank=len(some))
        scores = coded_scores(level.apply(queries_QD), level.apply(documents.vectors), bits, spec)
        return scores.numpy().astype(np.float64)


def bytes_of(config: VectorConfig, groups: int) -> int:
    """Return the bytes of a document's vector with its scales."""
    return code_bytes(config.dimension, config.bits) + 4 * groups


def rows(methods: Methods) -> Iterator[Row]:
    """Yield what is compared."""
    groups = len(methods.opened.manifest.slices)

    def projected(name: str, damping: float, kind: str = "ekfac", normalise: str = "none", **changes) -> Row:
        config = VectorConfig(**{"dimension": DIMENSION, "rank_fraction": 1.0} | changes)
        label = f"{name}, D={config.dimension:,}, {config.bits} bit"
        return label, bytes_of(config, groups), lambda: methods.projected(config, damping, kind, normalise)

    def exact(damping: float) -> Row:
        return f"exact EK-FAC, damping {damping:g}", None, lambda: methods.exact("ekfac", damping)

    usual, chosen = bytes_of(VectorConfig(), groups), methods.opened.manifest.damping["index"]
    kronecker = {"kind": "identity", "projection": "kronecker", "dimension": 256 * len(methods.layers)}
    yield exact(0.1)  # what the others are a share of
    yield f"the index as `gindex build` makes it, damping {chosen:g}", usual, lambda: methods.function.scores("index")
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
    for mu, count in ((1.0, None), (0.1, None), (1.0, 100)):
        label = f"EK-FAC, damping 10, second level mu {mu:g}, C from {count or 'all documents'}, D={DIMENSION:,}, 1 bit"
        yield label, usual, lambda m=mu, c=count: methods.second_level(10.0, m, c)
    for bits, dimension in ((4, 7680), (1, 16384), (1, 4096), (16, 1920), (2, 15360)):
        yield projected("EK-FAC, damping 10", 10.0, bits=bits, dimension=dimension)
    yield projected("EK-FAC, damping 10, unit norm", 10.0, normalise="unit")
    yield projected("EK-FAC, damping 10, RelatIF", 10.0, normalise="relatif")
    yield projected("raw, Kronecker 16 x 16 a layer", 1.0, bits=1, **kronecker)
    yield "exact K-FAC, damping 0.1", None, lambda: methods.exact("kfac", 0.1)
    yield "exact diagonal, damping 0.1", None, lambda: methods.exact("diagonal", 0.1)


def share(method: MethodLds, exact: MethodLds) -> str:
    """Return a method's LDS as a share of exact EK-FAC's, with its interval."""
    ratio = interval(method.lds.mean / exact.lds.mean, method.samples / exact.samples)
    return f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--subsets", type=int, default=80)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file to write all numbers to")
    arguments = parser.parse_args()
    config, start = LdsConfig(subsets=arguments.subsets, repeats=arguments.repeats), time.monotonic()
    experiment = load_experiment(f"{FINE_TUNING}{arguments.folder}")
    kept = Kept(experiment, Path(arguments.folder) / "lds")
    subsets = draw_subsets(experiment.documents, config)
    seeds = [config.seed + repeat for repeat in range(config.repeats) for _ in subsets]
    losses_KQ = kept.losses(subsets * config.repeats, seeds, terminal_progress())
    outcomes_RQM = -losses_KQ.reshape(config.repeats, len(subsets), -1).swapaxes(1, 2)
    print(f"trained in {time.monotonic() - start:.0f} s; ceiling {ceiling(outcomes_RQM) or 1:.3f}", file=sys.stderr)
    found: dict[str, MethodLds] = {}
    print("| scores | bytes | LDS | of exact |\n|---|---|---|---|")
    for name, size, method in rows(Methods(experiment)):
        found[name] = compare(method(), subsets, outcomes_RQM.mean(0))
        lds = found[name].lds
        relative = share(found[name], found[EXACT]) if EXACT in found else ""
        cells = [name, f"{size:,}" if size else "", f"{lds.mean:.3f} [{lds.low:.3f}, {lds.high:.3f}]", relative]
        print("|", " | ".join(cells), "|", flush=True)
    print(f"{time.monotonic() - start:.0f} s in all", file=sys.stderr)
    if arguments.json:
        values = {name: vars(method.lds) for name, method in found.items()}
        arguments.json.write_text(json.dumps({"ceiling": ceiling(outcomes_RQM), "lds": values}, indent=1))


if __name__ == "__main__":
    main()
