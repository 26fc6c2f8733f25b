"""How often the certificate of an exact re-rank is right: simulated errors, and indexes recomputed in full.

    python tools/benchmarks/certificate.py                                                   # simulated: a minute
    python tools/benchmarks/certificate.py runs/jargon runs/small --queries 32 --candidates 30 100

Each query is a part of the index, without its own document; both ends are looked at. The influence of all parts on all
queries is kept in --work. Candidates are the best by score; a certificate holds where no other part has more influence
than the tenth best of them. The table goes to standard output.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gindex import GradientIndex
from gindex.exact.certification import Known, Outside, certify
from gindex.exact.fidelity import sample_queries
from gindex.progress import Silent

Values = npt.NDArray[np.float64]
Case = tuple[Values, Values, Values]
"""Influence, scores and sizes of all parts, for one query."""

K, PARTS, BLOCK = 10, 2000, 20
CERTAINTIES = (0.9, 0.95, 0.99)

ERRORS: dict[str, Callable[[np.random.Generator, Values], Values]] = {
    "Gaussian": lambda g, _: g.standard_normal(PARTS),
    "Student's t, 3 degrees": lambda g, _: g.standard_t(3, PARTS) / 1.7,
    "Student's t, 2 degrees": lambda g, _: g.standard_t(2, PARTS) / 2,
    "Gaussian of widths that vary": lambda g, _: g.standard_normal(PARTS) * np.exp(g.standard_normal(PARTS) / 2),
    "skewed": lambda g, _: g.exponential(1, PARTS) - 1,
    "alike in 40 groups": lambda g, _: (
        0.7 * g.standard_normal(40)[g.integers(0, 40, PARTS)] + 0.7 * g.standard_normal(PARTS)
    ),
    "wider for what matters": lambda g, cosines: g.standard_normal(PARTS) * (0.5 + np.abs(cosines)),
}


def simulated(errors: str, cases: int) -> Iterator[Case]:
    """Draw queries with a few parts that matter, and errors of scores in proportion to size."""
    generator = np.random.default_rng(0)
    for _ in range(cases):
        sizes, cosines = np.exp(generator.standard_normal(PARTS) / 2), 0.1 * generator.standard_normal(PARTS)
        matter = generator.choice(PARTS, 30, replace=False)
        cosines[matter] += 0.5 + np.abs(generator.standard_normal(30))
        scores = sizes * (cosines + 0.25 * ERRORS[errors](generator, cosines))
        yield 1.7 * sizes * cosines, scores, sizes


def measured(path: Path, queries: int, work: Path) -> list[Case]:
    """Both ends of queries that are parts of an index, against all parts of other documents."""
    kept = work / f"{path.name}-{queries}.npz"
    if not kept.is_file():
        index = GradientIndex.open(path)
        table, parts = index.snapshot.documents, index.snapshot.usable_parts
        asked = sample_queries(table, queries, index.snapshot.usable, 0)
        vectors = index.model.encoder.encode_queries([query.objective for query in asked.tokens]).vectors.cpu()
        influence = index.reranker.influence(asked.tokens, [parts] * len(asked.tokens), Silent())
        np.savez(
            kept,
            scores=index.scores(vectors),
            influence=np.stack(influence),
            sizes=np.sqrt(index.snapshot.vectors.self_influence(parts).astype(np.float64)),
            own=asked.documents[:, None] == table.part_documents()[parts],
        )
    found = np.load(kept)
    cases = []
    for scores, influence, own in zip(found["scores"], found["influence"], found["own"], strict=True):
        one = influence[~own].astype(np.float64), scores[~own].astype(np.float64), found["sizes"][~own]
        cases += [one, (-one[0], -one[1], one[2])]
    return cases


def stated(case: Case, candidates: int) -> tuple[float, bool]:
    """The probability that a certificate states, and whether it is true."""
    influence, scores, sizes = case
    order = np.argsort(-scores, kind="stable")
    first, rest = order[:candidates], order[candidates:]
    least = float(np.sort(influence[first])[-K])
    known = Known(influence_M=influence[first], scores_M=scores[first], sizes_M=sizes[first])
    outside = Outside(scores_R=scores[rest], sizes_R=sizes[rest], counts_R=np.ones(len(rest)))
    return certify(known, outside, least, K).probability, not len(rest) or bool(influence[rest].max() <= least)


def coverage(name: str, cases: Iterable[Case], candidates: Sequence[int]) -> None:
    """Print how likely certificates call it that none was missed, and how often that is so."""
    kept = list(cases)
    for count in candidates:
        found = np.array([stated(case, count) for case in kept])
        sure = found[:, 0] >= 0.95
        held = f"{int(found[sure, 1].sum())} of {int(sure.sum())}" if sure.any() else "none"
        means = f"{found[:, 0].mean():.2f} | {found[:, 1].mean():.2f}"
        print(f"| {name} | {count} | {len(found)} | {means} | {held} |", flush=True)


def stopping(name: str, cases: Iterable[Case], most: int) -> None:
    """Print what `certainty` saves, and how often what it stopped at was true."""
    kept = [[(count, *stated(case, count)) for count in range(BLOCK, most, BLOCK)] for case in cases]
    for certainty in CERTAINTIES:
        stops = [next((step for step in steps if step[1] >= certainty), None) for steps in kept]
        mean = sum(most if stop is None else stop[0] for stop in stops) / len(stops)
        held = [stop[2] for stop in stops if stop is not None]
        print(f"| {name} | {certainty} | {mean:.0f} of {most} | {sum(held)} of {len(held)} |", flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("indexes", nargs="*", type=Path)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--cases", type=int, default=100, help="simulated queries of each kind")
    parser.add_argument("--work", type=Path, default=Path(".cache/bench/certificate"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.indexes:
        sets = [(path.name, measured(path, arguments.queries, arguments.work)) for path in arguments.indexes]
    else:
        sets = [(errors, list(simulated(errors, arguments.cases))) for errors in ERRORS]
    print("| errors | candidates | queries | stated, mean | true | true where .95 or more is stated |")
    print("|---|---|---|---|---|---|")
    for name, cases in sets:
        coverage(name, cases, arguments.candidates)
    print("\n| errors | certainty | re-ranked, mean | true where it stopped |\n|---|---|---|---|")
    for name, cases in sets:
        stopping(name, cases, max(arguments.candidates))


if __name__ == "__main__":
    main()
