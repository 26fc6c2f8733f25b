"""The second level of curvature against retraining: the table of docs/decisions/0003-second-level.md, as Markdown.

    python tools/benchmarks/second_level.py --work .cache/bench/truth-digits

scikit-learn's digits, 100 random halves with five trainings on each, kept in --work; the linear datamodelling score of
vectors with C fitted on different things, by mu and bits.

Axes: Q queries, N documents, D dimension.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from torch import Tensor

from gindex.config import VectorConfig
from gindex.lab.attribution import coded_scores
from gindex.lab.evaluations.config import LdsConfig
from gindex.lab.evaluations.experiments import load_experiment
from gindex.lab.evaluations.lds import evaluate_lds
from gindex.lab.evaluations.methods import TensorMethods
from gindex.lab.evaluations.training import Method, Scores
from gindex.lab.evaluations.work_folder import WorkFolder
from gindex.lab.second_level.curvature import SecondLevel, SecondMoment, second_level
from gindex.progress import Silent

MUS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def rows(found: TensorMethods, dimension: int, damping: float) -> Iterator[tuple[str, Method]]:
    """Yield the methods of a table, named `row|column`."""
    path = found.path(VectorConfig(dimension=dimension), damping)
    queries_QD, vectors_ND = found.vectors(path)
    pseudo_ND = found.fitted("ekfac").vectors(path, found.documents, 1).vectors
    spec = path.projection.spec

    def scores(queries: Tensor, vectors: Tensor, bits: int, mu: float | None = None) -> Scores:
        return coded_scores(queries, vectors, bits, spec, mu).double().numpy()

    def uncoded(level: Callable[[], SecondLevel]) -> Scores:
        return (level().apply(queries_QD, 2) @ vectors_ND.T).double().numpy()

    def on_the_query(level: Callable[[], SecondLevel], bits: int) -> Scores:
        return scores(level().apply(queries_QD, 2), vectors_ND, bits)

    def before_coding(level: Callable[[], SecondLevel], bits: int) -> Scores:
        return scores(level().apply(queries_QD), level().apply(vectors_ND), bits)

    for bits in (4, 2, 1):
        yield f"the stored vectors, {bits} bits|no R", partial(scores, queries_QD, vectors_ND, bits)
    for mu in MUS:
        for bits in (4, 2, 1):
            yield f"the stored vectors, {bits} bits|{mu:g}", partial(scores, queries_QD, vectors_ND, bits, mu)
        own, pseudo = (partial(level_of, v, mu) for v in (vectors_ND, pseudo_ND))
        yield f"the vectors before they were coded, 1 bit|{mu:g}", partial(on_the_query, own, 1)
        yield f"pseudo-gradients, not coded|{mu:g}", partial(uncoded, pseudo)
        yield f"pseudo-gradients, 1 bit, R before coding|{mu:g}", partial(before_coding, pseudo, 1)
    for rank in (64, 256):
        yield (
            f"the vectors, not coded, {rank} directions|0.1",
            partial(uncoded, partial(level_of, vectors_ND, 0.1, rank)),
        )


def level_of(vectors_ND: Tensor, mu: float, rank: int | None = None) -> SecondLevel:
    """Fit R on vectors."""
    moment = SecondMoment(vectors_ND.shape[1])
    moment.add(vectors_ND)
    return second_level(moment, mu, rank)


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="Where finished trainings are kept.")
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--damping", type=float, default=1.0, help="As a multiple of the mean eigenvalue.")
    parser.add_argument("--subsets", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    experiment = load_experiment("digits")
    found = experiment.function.trained()  # type: ignore[attr-defined]
    exact = {
        f"exact EK-FAC, damping {damping:g}|no R": partial(found.exact, "ekfac", damping) for damping in (0.1, 1.0)
    }
    methods = exact | dict(rows(found, given.dimension, given.damping))
    config = LdsConfig(subsets=given.subsets, repeats=given.repeats)
    measured = evaluate_lds(WorkFolder(experiment, given.work), methods, config, Silent()).methods
    columns = ("no R", *(f"{mu:g}" for mu in MUS))
    print(f"| C of | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for row in dict.fromkeys(name.split("|")[0] for name in methods):
        cells = (measured.get(f"{row}|{column}") for column in columns)
        texts = ("" if m is None else f"{m.lds.mean:.3f} ({m.lds.low:.3f} to {m.lds.high:.3f})" for m in cells)
        print(f"| {row} | {' | '.join(texts)} |")


if __name__ == "__main__":
    main()
