"""Bytes a document against fidelity: which documents exact EK-FAC would find, and which the vectors find.

    python tools/data/fetch_model.py && python tools/data/fetch_foldoc.py .cache/corpora/foldoc.jsonl
    python tools/benchmarks/fidelity.py --model .cache/models/SmolLM2-135M-Instruct --work .cache/bench/smollm2
    python tools/benchmarks/fidelity.py --model .cache/models/small --work .cache/bench/small  # made by train_small.py

Builds an index over 2,000 entries of FOLDOC, computes the exact influence of all of them on held-out entries, and
compares vectors made in many ways with it. Everything is kept in --work, and a run goes on where the last one stopped.
The table goes to standard output.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fidelity_variants import Variant, VariantObserver, coded_scores, precondition, prepare, stored_bytes
from torch import Tensor

from gindex import BuildConfig, CorpusConfig, CurvatureConfig, GradientIndex, ModelConfig
from gindex.config import FidelityConfig
from gindex.curvature.eigenvalues import effective_dimension
from gindex.curvature.ranks import ranks
from gindex.documents.selection import documents_of, lexical_documents
from gindex.documents.table import DocumentTable
from gindex.exact.rerank import Reranker
from gindex.model.capture import observe
from gindex.model.layers import TrackedLayer
from gindex.model.tracked_model import TrackedModel
from gindex.options import default_of
from gindex.progress import Silent
from gindex.queries.query import Query
from gindex.queries.tokens import QueryTokens, tokenize_query
from gindex.search.candidates import Candidate, fused
from gindex.search_options import SearchOptions
from gindex.statistics import WINDOWS, agreement, overlap, summarise
from gindex.store.factors import FactorReader
from gindex.store.layout import Layout
from gindex.store.snapshot import Snapshot

BATCH_TOKENS = 1024
EXACT_BYTES = 10 << 30  # preconditioned queries held at once: one pass for all
SHOWN = ("pearson", "spearman", "recall@10", *(f"top10_in_{window}" for window in WINDOWS))
BY_BOTH = tuple(f"both_in_{window}" for window in WINDOWS)


def write_corpus(source: Path, work: Path, documents: int, characters: int) -> None:
    """Write the documents to index, and other entries as queries: a third is prompt, the rest completion."""
    entries = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    entries = [entry for entry in entries if len(entry["text"]) <= characters]
    random.Random(0).shuffle(entries)
    queries = []
    for entry in entries[documents : documents + 200]:
        words = entry["text"].split(" ")
        cut = max(3, len(words) // 3)
        completion = " " + " ".join(words[cut:])
        queries.append({"id": entry["id"], "prompt": " ".join(words[:cut]), "completion": completion})
    for name, lines in (("documents", entries[:documents]), ("queries", queries)):
        text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n"
        (work / f"{name}.jsonl").write_text(text, encoding="utf-8")


class Setting:
    """An index with its model, queries, and their exact influence."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Build what isn't there yet."""
        work = arguments.work
        work.mkdir(parents=True, exist_ok=True)
        if not (work / "documents.jsonl").is_file():
            write_corpus(arguments.corpus, work, arguments.documents, arguments.characters)
        model = ModelConfig(name=str(arguments.model))
        config = BuildConfig(
            model=model,
            corpus=CorpusConfig(max_tokens=256),
            curvature=CurvatureConfig(fit_documents=arguments.fit_documents),
            fidelity=FidelityConfig(queries=0),
        )
        if not (work / "index" / "manifests").is_dir():
            GradientIndex.build([str(work / "documents.jsonl")], work / "index", config)
        self.layout = Layout(work / "index")
        self.manifest = Snapshot.open(self.layout).manifest
        self.engine = TrackedModel.load(model)
        self.layers: Sequence[TrackedLayer] = self.engine.table.layers
        self.table = DocumentTable.open(self.layout.volume(0).documents)
        self.parts = np.arange(self.table.counts().parts)
        self.factors = FactorReader(self.layout, self.manifest.layers, torch.device("cpu"))
        lines = (work / "queries.jsonl").read_text(encoding="utf-8").splitlines()[: arguments.queries]
        asked = [Query(**json.loads(line)) for line in lines]
        self.queries = [tokenize_query(query, self.engine.loaded) for query in asked]
        most = default_of(SearchOptions, "words_documents")
        words = [f"{query.prompt}{query.completion or ''}" for query in asked]
        self.lexical = [lexical_documents(self.table, text, most) for text in words] if arguments.words else []
        self.documents = dict(enumerate(documents_of(self.table, self.parts).tolist()))
        self.influence = self._exact(work / f"influence-{arguments.queries}.npy")

    def _exact(self, path: Path) -> np.ndarray:
        """Return exact influence [Q, N], computed once."""
        if not path.is_file():
            print("exact influence", file=sys.stderr)
            factors = FactorReader.of(self.layout, self.manifest.layers, self.engine)
            reranker = Reranker(self.engine, factors.load, 0.1, self.table, BATCH_TOKENS, EXACT_BYTES)
            found = reranker.influence(self.queries, [self.parts] * len(self.queries), Silent())
            np.save(path, np.stack(found))
        return np.load(path)


def batches_of(setting: Setting, queries: Sequence[QueryTokens] | None) -> Iterator:
    """Yield the batches of the documents, or of the queries."""
    if queries is not None:
        objectives = [query.objective for query in queries]
    else:
        objectives = setting.table.objectives(setting.parts)
    yield from setting.engine.batches(objectives, np.arange(len(objectives)), BATCH_TOKENS)


def random_bases(layers: Sequence[TrackedLayer], size: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return random sides of `size` columns for every layer: what tools with a Kronecker projection store."""
    generator = torch.Generator().manual_seed(0)

    def draw(width: int) -> Tensor:
        return torch.randint(0, 2, (width, size), generator=generator).float().mul_(2).sub_(1) / size**0.5

    return {layer.source: draw(layer.inputs) for layer in layers}, {layer.name: draw(layer.outputs) for layer in layers}


def measure(setting: Setting, variants: Sequence[Variant], fractions: Mapping[str, float]) -> list[dict]:
    """Score all documents with every variant and compare with exact influence."""
    layers, bases = setting.layers, {}
    for name, fraction in fractions.items():
        if name.startswith("random"):
            bases[name] = random_bases(layers, int(name.removeprefix("random")))
        else:
            activation, gradient = {}, {}
            for layer in layers:
                R, P = ranks(layer, fraction)
                loaded = setting.factors.load(layer.name, R, P)
                activation[layer.source], gradient[layer.name] = loaded.Q_A.matrix(), loaded.Q_S.matrix()
            bases[name] = (activation, gradient)
    prepared = [prepare(variant, layers) for variant in variants]

    def vectors(queries: Sequence[QueryTokens] | None) -> Iterator[tuple[np.ndarray, list[Tensor]]]:
        for batch in batches_of(setting, queries):
            observer = VariantObserver(prepared, bases, len(batch.ordinals))
            observe(layers, observer, len(batch.ordinals), partial(setting.engine.task.losses, batch))
            yield batch.ordinals, observer.vectors

    query_vectors = [torch.zeros(len(setting.queries), one.width) for one in prepared]
    for ordinals, found in vectors(setting.queries):
        for every, some in zip(query_vectors, found, strict=True):
            every[ordinals] = some
    shape = (len(setting.queries), len(setting.parts))
    scores = [{bits: np.zeros(shape, np.float32) for bits in one.variant.bits} for one in prepared]
    whole = {n: torch.zeros(shape[1], one.width) for n, one in enumerate(prepared) if one.variant.preconditioned}
    start, done = time.monotonic(), 0
    for ordinals, found in vectors(None):
        for number, (one, vectors_ND) in enumerate(zip(prepared, found, strict=True)):
            if number in whole:
                whole[number][ordinals] = vectors_ND
                continue
            for bits, scores_QN in scores[number].items():
                scores_QN[:, ordinals] = coded_scores(query_vectors[number], vectors_ND, bits, one.slices).numpy()
        done += len(ordinals)
        left = (time.monotonic() - start) / done * (shape[1] - done)
        print(f"\rdocuments {done}/{shape[1]}, {left:.0f} s left ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for number, vectors_ND in whole.items():
        slices = prepared[number].slices
        queries_QD = precondition(query_vectors[number], vectors_ND, slices)
        for bits in scores[number]:
            scores[number][bits] = coded_scores(queries_QD, vectors_ND, bits, slices).numpy()
    rows = []
    for one, by_bits in zip(prepared, scores, strict=True):
        for bits, scores_QN in by_bits.items():
            rows.append(row(one, bits, scores_QN, setting, layers))
    return rows


def within_both(setting: Setting, scores_N: np.ndarray, lexical: list, influence_N: np.ndarray) -> dict[str, float]:
    """Return how many of the true top ten are among the best by reciprocal ranks, by score and by the query's words."""
    order = np.argsort(-scores_N, kind="stable").tolist()
    by_score = [Candidate(ordinal=n, score=float(scores_N[n]), merit=float(scores_N[n])) for n in order]
    places_N = np.empty(len(order))
    places_N[[c.ordinal for c in fused(by_score, setting.documents, lexical)]] = np.arange(len(order))
    return {name: overlap(-places_N, influence_N, window, 10) for name, window in zip(BY_BOTH, WINDOWS, strict=True)}


def row(one, bits: int, scores_QN: np.ndarray, setting: Setting, layers: Sequence[TrackedLayer]) -> dict:
    """Return one line of the table."""
    variant = one.variant
    kept = sum(P * R for R, P in variant.ranks.values())
    standing = 0.0
    for layer in layers:
        R, P = variant.ranks[layer.name]
        Lambda = variant.Lambda[layer.name]
        standing += effective_dimension(Lambda[:P, :R], variant.damping * float(Lambda.double().mean()))
    values = [agreement(s, i) for s, i in zip(scores_QN, setting.influence, strict=True)]
    for value, s, i, lexical in zip(values, scores_QN, setting.influence, setting.lexical, strict=False):
        value |= within_both(setting, s, lexical, i)
    measures = summarise(values)
    return {
        "vector": variant.name,
        "projection": variant.projection or "none",
        "dimension": one.width,
        "bits": bits,
        "bytes": stored_bytes(one, bits),
        "kept": kept,
        "effective_dimension": round(standing),
        "measures": {name: (m.mean, m.low, m.high) for name, m in measures.items()},
    }


def uniform(layers: Sequence[TrackedLayer], fraction: float) -> dict[str, tuple[int, int]]:
    """Keep the leading part of every side of every layer."""
    return {layer.name: ranks(layer, fraction) for layer in layers}


def grid(setting: Setting, arguments: argparse.Namespace) -> tuple[list[Variant], dict[str, float]]:
    """Return the variants to measure and how much of each basis they need."""
    layers = setting.layers
    Lambda = {layer.name: setting.factors.load(layer.name).Lambda for layer in layers}
    ones = {layer.name: torch.ones(1, 1).expand(layer.outputs, layer.inputs) for layer in layers}
    variants = []
    for fraction in arguments.fractions:
        keep = uniform(layers, fraction)
        for damping in arguments.dampings:
            name = f"leading {fraction:g}, damping {damping:g}"
            common = {"basis": "eigen", "ranks": keep, "Lambda": Lambda, "damping": damping}
            if arguments.unprojected:
                variants.append(Variant(name=name, projection=None, bits=(32,), **common))
            variants += [
                Variant(name=name, dimension=dimension, bits=tuple(arguments.bits), projection=kind, **common)
                for dimension in arguments.dimensions
                for kind in arguments.projections
            ]
        if arguments.raw:
            variants.append(
                Variant(
                    name=f"leading {fraction:g}, raw", basis="eigen", ranks=keep, Lambda=ones, damping=0.0,
                    dimension=arguments.dimensions[-1], bits=tuple(arguments.bits),
                )
            )  # fmt: skip
    needed = {"eigen": max(arguments.fractions)}
    if arguments.raw:
        sides = {layer.name: (16, 16) for layer in layers}
        random = {"basis": "random16", "ranks": sides, "Lambda": ones, "damping": 0.0, "projection": None}
        variants.append(Variant(name="raw, random 16 x 16 a layer", bits=(16, 1), **random))
        name = "the same, bergson's preconditioner"
        variants.append(Variant(name=name, bits=(16, 1), preconditioned=True, **random))
        needed["random16"] = 1.0
    return variants, needed


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, default=Path(".cache/corpora/foldoc.jsonl"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--characters", type=int, default=320, help="longest entry that is taken")
    parser.add_argument("--fit-documents", type=int, default=500)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.25, 0.125, 0.0625])
    parser.add_argument("--dampings", type=float, nargs="+", default=[0.1, 10.0])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[30720])
    parser.add_argument("--projections", nargs="+", default=["count-sketch"])
    parser.add_argument("--bits", type=int, nargs="+", default=[1])
    parser.add_argument("--unprojected", action="store_true", help="add rows without projection")
    parser.add_argument(
        "--words", action="store_true", help="add candidates by score and by BM25, as --exact takes them"
    )
    parser.add_argument("--raw", action="store_true", help="add rows without curvature")
    parser.add_argument("--json", type=Path, help="append the rows to this file")
    arguments = parser.parse_args()
    setting = Setting(arguments)
    rows = measure(setting, *grid(setting, arguments))
    if arguments.json:
        with arguments.json.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(r) + "\n" for r in rows)
    print_table(rows, SHOWN + BY_BOTH if arguments.words else SHOWN)


def print_table(rows: list[dict], shown: Sequence[str]) -> None:
    """Print rows as Markdown."""
    print("| vector | projection | D | bits | bytes | d_eff |", " | ".join(shown), "|")
    print("|---" * (6 + len(shown)) + "|")
    for r in rows:
        cells = [r["vector"], r["projection"], f"{r['dimension']:,}", r["bits"], f"{r['bytes']:,}"]
        cells.append(f"{r['effective_dimension']:,}")
        cells += [f"{r['measures'][n][0]:.3f}" if n in r["measures"] else "" for n in shown]
        print("|", " | ".join(map(str, cells)), "|")


if __name__ == "__main__":
    main()
