"""Conjugate gradients by gindex and by bergson on the same matrix: products, solutions, residuals.

    python tools/benchmarks/methods.py peer FOLDER bergson-ekfac ENV/bin/python by_bergson ekfac CASE WORK OUT
    python tools/benchmarks/methods.py peer FOLDER bergson-cg-2-60 ENV/bin/python by_bergson cg CASE WORK OUT \
        --steps 2 --documents 60 --queries 16
    python tools/benchmarks/cg_beside_bergson.py FOLDER --steps 2 --documents 60

Both take bergson's query gradients, factors and damping, and the documents that bergson drew for the query. bergson
begins at EK-FAC's solution M b, gindex at 0: so bergson's is also compared with what gindex finds from M b in as many
steps, where the two must agree, and gindex from 0 gets as many products. The residual is the root of <r, M r> / <b, M
b>, and `cosine` that of two solutions in the norm of the damped matrix.

Axes: Q queries, W tracked weights, O layer outputs, I layer inputs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from truth_language import Methods

from gindex.curvature.basis import DenseBasis
from gindex.curvature.ekfac import LayerFactors
from gindex.lab.evaluations.experiments import FINE_TUNING, load_experiment
from gindex.lab.refine.config import CgConfig
from gindex.lab.refine.gauss_newton import GaussNewton
from gindex.lab.refine.inverse import CgInverse, Damping, FactoredInverse
from gindex.vectors.influence import WeightSpace

BATCH = 10


def bergson_gradients(folder: Path, space: WeightSpace, names: list[str]) -> Tensor:
    """Read a gradient index of bergson's as vectors [Q, W].

    Args:
        folder: With gradients.bin and info.json.
        space: The tracked weights as one axis.
        names: The layers by gindex's names.
    """
    info = json.loads((folder / "info.json").read_text())
    rows = np.memmap(folder / "gradients.bin", np.float32, "r").reshape(info["num_grads"], -1)
    found_QW = torch.empty(len(rows), space.size, dtype=torch.float32, device="cpu")
    parts, start = space.split(found_QW), 0
    for name, size in info["grad_sizes"].items():
        (layer,) = (full for full in names if full.endswith(name))
        parts[layer].copy_(torch.from_numpy(rows[:, start : start + size].copy()).view_as(parts[layer]))
        start += size
    return found_QW


def bergson_factors(folder: Path, names: list[str]) -> dict[str, LayerFactors]:
    """Read bergson's EK-FAC factors by gindex's names of layers."""
    files = ("eigen_activation_sharded", "eigen_gradient_sharded", "eigenvalue_correction_sharded")
    Q_A, Q_S, Lambda = (load_file(folder / file / "shard_0.safetensors") for file in files)
    found = {}
    for name, eigenvalues_OI in Lambda.items():
        (layer,) = (full for full in names if full.endswith(name))
        found[layer] = LayerFactors(
            Q_A=DenseBasis(Q_A[name].float()),
            Q_S=DenseBasis(Q_S[name].float()),
            Lambda=eigenvalues_OI.float(),
            mean_eigenvalue=float(eigenvalues_OI.mean()),
        )
    return found


def main() -> None:
    """Solve and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--damping", type=float, default=0.1)
    parser.add_argument("--queries", type=int, default=2)
    arguments = parser.parse_args()
    methods = Methods(load_experiment(f"{FINE_TUNING}{arguments.folder}"))
    names, work = [layer.name for layer in methods.layers], arguments.folder / "methods" / "work" / "by_bergson"
    run = work / f"cg-{arguments.steps}-{arguments.documents}-{arguments.damping:g}"
    space, factors = WeightSpace(methods.layers), bergson_factors(work / "ekfac" / "hessian" / "kfac", names)
    queries_QW = bergson_gradients(run / "query", space, names)
    theirs_QW = bergson_gradients(run / "astra_query", space, names)
    preconditioner = FactoredInverse(methods.layers, factors.__getitem__, arguments.damping)
    damping = Damping(methods.layers, factors.__getitem__, arguments.damping)
    print("| query | residual at M b | bergson | gindex from M b | from 0 | cosine from M b | from 0 |")
    print("|---" * 7 + "|")
    for query in range(arguments.queries):
        generator = torch.Generator().manual_seed(query)  # as bergson draws them: its seed is 0
        drawn = torch.randperm(methods.function.documents, generator=generator)[: arguments.documents].numpy()
        batches = [methods.batch(some) for some in np.split(drawn, range(BATCH, len(drawn), BATCH))]
        curvature = GaussNewton(methods.layers, methods.task, batches)

        def damped(v_QW: Tensor, curvature: GaussNewton = curvature) -> Tensor:
            return damping.add(curvature.product(v_QW), v_QW)

        b_1W, their_1W = queries_QW[query][None], theirs_QW[query][None]
        first = float((b_1W * preconditioner.apply(b_1W)).sum())

        def residual(x_1W: Tensor, b_1W: Tensor = b_1W, first: float = first, damped=damped) -> float:
            r_1W = b_1W - damped(x_1W)
            return (float((r_1W * preconditioner.apply(r_1W)).sum()) / first) ** 0.5

        def solved(b_1W: Tensor, iterations: int, curvature: GaussNewton = curvature) -> Tensor:
            config = CgConfig(iterations=iterations, tolerance=1e-6)
            return CgInverse(curvature, damping, config, preconditioner).apply(b_1W)

        start_1W = preconditioner.apply(b_1W)
        same_1W = start_1W + solved(b_1W - damped(start_1W), arguments.steps)
        zero_1W = solved(b_1W, arguments.steps + 1)
        their_product_1W = damped(their_1W)

        def cosine(x_1W: Tensor, their_1W: Tensor = their_1W, product_1W: Tensor = their_product_1W) -> str:
            sizes = float((x_1W * damped(x_1W)).sum() * (their_1W * product_1W).sum())
            return f"{float((x_1W * product_1W).sum()) / sizes**0.5:.6f}"

        residuals = [f"{residual(x):.3f}" for x in (start_1W, their_1W, same_1W, zero_1W)]
        print("|", " | ".join([str(query), *residuals, cosine(same_1W), cosine(zero_1W)]), "|", flush=True)


if __name__ == "__main__":
    main()
