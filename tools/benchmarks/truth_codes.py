"""Codes of whitened gradients beside the index's own, by the linear datamodelling score.

The tables of docs/decisions/0008-beating-the-projection.md.

    python tools/data/make_truth.py unseen .cache/truth/unseen
    python tools/benchmarks/truth_language.py .cache/truth/unseen --rows 'damping 0.1$'     # the trainings, kept
    python tools/benchmarks/truth_codes.py .cache/truth/unseen --projections 2

All codes are made from the same whitened gradients of documents and queries, held in memory (1 GB for each damping).
`--rows threshold` computes those alone whose name the expression finds.

Axes: Q queries, N documents, C weights, W width of a slice, B blocks.
"""

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from truth_language import Methods, measure

from gindex.curvature.ekfac import rotated_gradients
from gindex.lab.evaluations.config import LdsConfig
from gindex.lab.evaluations.experiments import FINE_TUNING, load_experiment
from gindex.lab.evaluations.lds import draw_subsets
from gindex.lab.evaluations.work_folder import WorkFolder
from gindex.model.capture import append_one, observe
from gindex.model.observer import Observer
from gindex.progress import Silent

EXACT_DAMPING = 0.1
CHUNK = 50  # documents that are coded at once
BUDGET = 4080  # bytes of a document's codes

Code = Callable[[Tensor], Tensor]
"""Returns what codes of vectors [N, W] stand for, up to a factor for each."""


class _Rotated(Observer):
    def __init__(self, methods: Methods) -> None:
        self.parts: dict[str, Tensor] = {}
        self._factors = methods.fitted("ekfac").factors

    def activations(self, layer, a_NTI):
        return append_one(a_NTI, layer)

    def gradients(self, layer, kept, g_NTO):
        factors = self._factors[layer.name]
        self.parts[layer.name] = rotated_gradients(kept, g_NTO, factors.Q_A, factors.Q_S).flatten(1)


class Gradients:
    """Gradients of documents and queries in the eigenbases, all layers on one axis."""

    def __init__(self, methods: Methods) -> None:
        """Compute them."""
        layers, factors = methods.layers, methods.fitted("ekfac").factors

        def rotated(batches: list) -> Tensor:
            found = []
            for batch in batches:
                observer = _Rotated(methods)
                observe(layers, observer, len(batch.ordinals), lambda b=batch: methods.task.losses(b))
                found.append(torch.cat([observer.parts[layer.name] for layer in layers], 1))
            return torch.cat(found)

        self.documents_NC, self.queries_QC = rotated(methods.documents), rotated(methods.queries)
        self.Lambda_C = torch.cat([factors[layer.name].Lambda.flatten() for layer in layers])
        self.mean_C = torch.cat([factors[at.name].mean_eigenvalue * torch.ones(at.parameters) for at in layers])
        self.layers = layers
        stops = np.cumsum([layer.parameters for layer in layers]).tolist()
        self.slices: dict[str, tuple[int, int]] = {}
        for layer, stop in zip(layers, stops, strict=True):
            self.slices[layer.group] = self.slices.get(layer.group, (stop - layer.parameters, stop))[0], stop

    def damped(self, damping: float) -> tuple[Tensor, Tensor]:
        """Return queries and documents whitened with a damping."""
        return self._scaled((self.Lambda_C + damping * self.mean_C).rsqrt())

    def threshold(self, b: float) -> tuple[Tensor, Tensor]:
        """Return both whitened with the exact damping, and shrunk where Lambda / (Lambda + damping) comes near b."""
        damped_C = self.Lambda_C + EXACT_DAMPING * self.mean_C
        return self._scaled(((1 - b * damped_C / self.Lambda_C).clamp(min=0) / damped_C).sqrt())

    def _scaled(self, scale_C: Tensor) -> tuple[Tensor, Tensor]:
        return self.queries_QC * scale_C, self.documents_NC * scale_C


def coded(vectors_NW: Tensor, queries_QW: Tensor, code: Code) -> Tensor:
    """Return the scores [Q, N] of coded vectors, scaled so that <decoded, v> = <v, v>."""
    scores = []
    for v_NW in vectors_NW.split(CHUNK):
        decoded_NW = code(v_NW)
        along_N = (decoded_NW * v_NW).sum(1).clamp(min=torch.finfo(v_NW.dtype).tiny)
        scores.append(queries_QW @ decoded_NW.T * (v_NW.square().sum(1) / along_N))
    return torch.cat(scores, 1)


def signs(v_NW: Tensor) -> Tensor:
    """One bit a coordinate."""
    return torch.where(v_NW >= 0, 1.0, -1.0)


def largest(block: int) -> Code:
    """Position and sign of the largest coordinate of each block."""

    def code(v_NW: Tensor) -> Tensor:
        v_NBK = v_NW.unflatten(1, (-1, block))
        where_NB1 = v_NBK.abs().argmax(2, keepdim=True)
        found = torch.zeros_like(v_NBK).scatter_(2, where_NB1, v_NBK.gather(2, where_NB1).sign())
        return found.flatten(1)

    return code


def largest_of_all(count: int) -> Code:
    """Signs of the largest coordinates of all."""

    def code(v_NW: Tensor) -> Tensor:
        where = v_NW.abs().topk(count, 1).indices
        return torch.zeros_like(v_NW).scatter_(1, where, v_NW.gather(1, where).sign())

    return code


def factors(rank: int, shape: tuple[int, int]) -> Code:
    """Signs of a layer's leading singular vectors."""

    def code(v_NW: Tensor) -> Tensor:
        u, s, w = torch.svd_lowrank(v_NW.unflatten(1, shape), q=rank + 4, niter=3)
        u, w = (signs(x[..., :rank]) / x[..., :rank].abs().sum(1, keepdim=True) for x in (u, w))
        return ((u * s[:, None, :rank]) @ w.mT).flatten(1)

    return code


def sketched(gradients: Gradients, pair: tuple[Tensor, Tensor], dimension: int, code: Code, seed: int) -> Tensor:
    """Return the scores of coded count sketches, a slice of equal width for each layer group."""
    width, scores_QN = dimension // len(gradients.slices), torch.zeros(len(pair[0]), len(pair[1]))
    for start, stop in gradients.slices.values():
        generator = torch.Generator().manual_seed(1000 * seed + start)
        order = torch.randperm(stop - start, generator=generator)
        flips = 2.0 * torch.randint(2, (stop - start,), generator=generator) - 1

        def sketch(x: Tensor, a: int = start, b: int = stop, order: Tensor = order, flips: Tensor = flips) -> Tensor:
            dealt = x[:, a:b][:, order] * flips
            return torch.nn.functional.pad(dealt, (0, -dealt.shape[1] % width)).unflatten(1, (-1, width)).sum(1)

        scores_QN += coded(sketch(pair[1]), sketch(pair[0]), code)
    return scores_QN


def by_layer(gradients: Gradients, pair: tuple[Tensor, Tensor], rank: int) -> Tensor:
    """Return the scores of factors of every layer."""
    sizes = [layer.parameters for layer in gradients.layers]
    parts = zip(gradients.layers, pair[0].split(sizes, 1), pair[1].split(sizes, 1), strict=True)
    return sum(coded(v_NW, q_QW, factors(rank, (layer.outputs, layer.inputs))) for layer, q_QW, v_NW in parts)


def rows(gradients: Gradients, seeds: range) -> Iterator[tuple[str, Callable[[], list[Tensor]]]]:
    """Yield names of codes, and what returns their scores by projection."""

    def by_seed(pair: Callable[[], tuple[Tensor, Tensor]], dimension: int, code: Code) -> Callable[[], list[Tensor]]:
        def scores() -> list[Tensor]:
            made = pair()
            return [sketched(gradients, made, dimension, code, seed) for seed in seeds]

        return scores

    def damped(damping: float) -> Callable[[], tuple[Tensor, Tensor]]:
        return lambda: gradients.damped(damping)

    yield "1 bit, D=30,720, damping 10", by_seed(damped(10.0), 30720, signs)
    for damping in (3.0, 10.0, 30.0):
        yield f"1 bit, D=32,640, damping {damping:g}", by_seed(damped(damping), 8 * BUDGET, signs)
    for b in (0.75, 0.85, 0.92):
        yield (
            f"1 bit, D=32,640, threshold weights, b={b}",
            by_seed(lambda b=b: gradients.threshold(b), 8 * BUDGET, signs),
        )
    for block, bits in ((128, 8), (32, 6)):
        for damping in (0.1, 1.0, 3.0, 10.0):
            dimension = 8 * BUDGET // bits * block
            name = f"largest of {block}, {bits} bits a block, D={dimension:,}, damping {damping:g}"
            yield name, by_seed(damped(damping), dimension, largest(block))
    yield (
        "signs of the 3,170 largest of all, damping 0.3",
        lambda: [coded(*reversed(gradients.damped(0.3)), largest_of_all(3170))],
    )
    for damping in (0.1, 3.0, 10.0):
        yield f"factors of rank 3, damping {damping:g}", lambda d=damping: [by_layer(gradients, gradients.damped(d), 3)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--projections", type=int, default=2, help="projections of each code")
    parser.add_argument("--rows", type=re.compile, default=re.compile(""), help="regular expression of the rows")
    arguments = parser.parse_args()
    config = LdsConfig(subsets=80, repeats=2)
    experiment = load_experiment(f"{FINE_TUNING}{arguments.folder}")
    subsets = draw_subsets(experiment.documents, config)
    seeds = [config.seed + repeat for repeat in range(config.repeats) for _ in subsets]
    losses_KQ = WorkFolder(experiment, Path(arguments.folder) / "lds").losses(subsets * config.repeats, seeds, Silent())
    outcomes_QM = -losses_KQ.reshape(config.repeats, len(subsets), -1).mean(0).T
    gradients = Gradients(Methods(experiment))
    queries_QC, documents_NC = gradients.damped(EXACT_DAMPING)
    exact_QN = (queries_QC @ documents_NC.T).numpy()
    del queries_QC, documents_NC
    print("| code | LDS | of projections | Pearson |\n|---|---|---|---|")
    for name, scores in rows(gradients, range(arguments.projections)):
        if arguments.rows.search(name):
            found = [scores_QN.numpy().astype(np.float64) for scores_QN in scores()]
            lds = [measure(scores_QN, subsets, outcomes_QM).lds.mean for scores_QN in found]
            pearson = np.mean([np.corrcoef(a, b)[0, 1] for one in found for a, b in zip(one, exact_QN, strict=True)])
            each = ", ".join(f"{value:.3f}" for value in lds)
            print(f"| {name} | {np.mean(lds):.3f} | {each} | {pearson:.3f} |", flush=True)


if __name__ == "__main__":
    main()
