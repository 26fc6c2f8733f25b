"""Scores by bergson 2.5.1's own pipelines, in an environment of its own: run by `tools/benchmarks/methods.py peer`.

    python by_bergson.py ekfac CASE WORK OUT.npy
    python by_bergson.py cg CASE WORK OUT.npy --steps 2 --documents 60 --queries 16
    python by_bergson.py trackstar CASE WORK OUT.npy

CASE is what `methods.py case` makes. Settings are bergson's defaults, in float32, but for what options say. OUT gets
[Q, N], positive where training on a document helps the query. Intermediate files stay in WORK; `cg` takes the factors
and queries that `ekfac` left there.

Axes: Q queries, N documents.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # --help is shown where bergson isn't installed
    from bergson.config import AstraConfig, DataConfig, QuerySetConfig

EKFAC = {"method": "kfac", "ev_correction": True}


def data(case: Path) -> "DataConfig":
    """Return the documents."""
    from bergson.config import DataConfig

    return DataConfig(dataset=str(case / "documents.jsonl"))


def queries(case: Path, count: int | None) -> "QuerySetConfig":
    """Return the first queries, or all."""
    from bergson.config import QuerySetConfig

    return QuerySetConfig(
        dataset=str(case / "queries.jsonl"), split=f"train[:{count}]" if count else "train", aggregation="none"
    )


def common(arguments: argparse.Namespace, run: Path) -> dict:
    """Return what every pipeline is told."""
    return {
        "run_path": str(run),
        "overwrite": True,
        "model": str(arguments.case / "model"),
        "data": data(arguments.case),
        "token_batch_size": 256,
        "precision": "fp32",
    }


def scores_of(run: Path) -> np.ndarray:
    """Return what a pipeline wrote, [N, Q]."""
    from bergson.data import load_scores

    return np.asarray(load_scores(run / "scores")[:], np.float64)


def ekfac(arguments: argparse.Namespace, astra: "AstraConfig | None" = None, name: str = "ekfac") -> np.ndarray:
    """EK-FAC, or a refinement of it where one is given."""
    from bergson.config import (
        AstraConfig,
        HessianConfig,
        HessianPipelineConfig,
        IndexConfig,
        InversionConfig,
        PreprocessConfig,
        ScoreConfig,
    )
    from bergson.hessians.pipeline import hessian_pipeline

    run = arguments.work / name
    hessian_pipeline(
        IndexConfig(**common(arguments, run)),
        HessianConfig(**EKFAC),
        ScoreConfig(),
        PreprocessConfig(),
        HessianPipelineConfig(
            query=queries(arguments.case, arguments.queries),
            inversion_cfg=InversionConfig(damping_factor=arguments.damping),
            astra=astra or AstraConfig(),
            resume=astra is not None,
        ),
    )
    return scores_of(run)


def cg(arguments: argparse.Namespace) -> np.ndarray:
    """EK-FAC refined by conjugate gradients on one batch of documents a query, or by its own descent."""
    from bergson.config import AstraConfig
    from bergson.hessians.astra import Astra

    read = Astra._read_row

    def writable(self: Astra, *of: object) -> dict:
        return {name: row.clone() for name, row in read(self, *of).items()}

    Astra._read_row = writable  # 2.5.1 refines in place what it mapped read-only: on a CPU, in float32, that crashes
    run = arguments.work / f"cg-{arguments.steps}-{arguments.documents}-{arguments.damping:g}"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    (run / "hessian").symlink_to(arguments.work / "ekfac" / "hessian", target_is_directory=True)
    astra = AstraConfig(
        num_steps=arguments.steps, solver=arguments.solver, batch_size=arguments.documents, micro_batch_size=10,
        lr=arguments.rate,
    )  # fmt: skip
    return ekfac(arguments, astra, run.name)


def trackstar_scores(arguments: argparse.Namespace) -> np.ndarray:
    """TrackStar: projected to 16 x 16 a layer, whitened by the mixed autocorrelation, to unit norm."""
    from bergson.cli.trackstar import trackstar
    from bergson.config import PreprocessConfig, TrackstarConfig
    from bergson.config.config import TrackstarIndexConfig

    run = arguments.work / "trackstar"
    shutil.rmtree(run, ignore_errors=True)
    trackstar(
        TrackstarIndexConfig(**common(arguments, run), projection_dim=arguments.projection),
        TrackstarConfig(
            query=queries(arguments.case, arguments.queries),
            preprocess_cfg=PreprocessConfig(unit_normalize=True),
        ),
    )
    return scores_of(run)


def source(arguments: argparse.Namespace) -> np.ndarray:
    """SOURCE with Adam's second moments: a segment and a checkpoint an epoch.

    Losses are summed over a document's tokens; training takes the mean over a batch's, which the rate stands for.
    """
    from bergson.approx_unrolling.pipeline import approx_unrolling_pipeline
    from bergson.config import ApproxUnrollingConfig, HessianConfig, IndexConfig, InversionConfig

    run, trained = arguments.work / "source", json.loads((arguments.case / "training.json").read_text())
    shutil.rmtree(run, ignore_errors=True)
    checkpoints = [str(arguments.case / "checkpoints" / f"checkpoint-{step}") for step in trained["checkpoints"]]
    approx_unrolling_pipeline(
        IndexConfig(**common(arguments, run)),
        HessianConfig(**EKFAC),
        ApproxUnrollingConfig(
            checkpoints=checkpoints,
            segments=len(checkpoints),
            lr_list=[rate / trained["tokens_a_document"] for rate in trained["rates"]],
            step_size_list=[trained["steps"]] * len(checkpoints),
            use_adam_preconditioner=True,
            inversion_cfg=InversionConfig(damping_factor=arguments.damping),
            query=queries(arguments.case, arguments.queries),
        ),
    )
    return -scores_of(run)  # its scores are of the loss


def magic(arguments: argparse.Namespace) -> np.ndarray:
    """MAGIC: the derivative of training itself, by bergson's trainer with as like a recipe as it takes."""
    from bergson.config import LRScheduleConfig
    from bergson.magic import MagicConfig
    from bergson.magic.cli import run_magic

    run, trained = arguments.work / "magic", json.loads((arguments.case / "training.json").read_text())
    given = common(arguments, run)
    del given["token_batch_size"]
    run_magic(
        MagicConfig(
            **given | {"model": str(arguments.case / "start")},
            query=queries(arguments.case, arguments.queries),
            batch_size=trained["documents_a_step"],
            num_epochs=len(trained["checkpoints"]),
            lr_schedule=LRScheduleConfig(
                lr=trained["rate"], lr_scheduler_type="constant_with_warmup", warmup_steps=trained["steps"]
            ),
            adam_beta1=0.9,
            adam_beta2=0.999,
            weight_decay=0.0,
            seed=0,
            save_mode="all",
            wandb_project="",
        )
    )
    return -scores_of(run)


METHODS = {"ekfac": ekfac, "cg": cg, "trackstar": trackstar_scores, "source": source, "magic": magic}


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("case", type=lambda name: Path(name).resolve())
    parser.add_argument("work", type=lambda name: Path(name).resolve())
    parser.add_argument("out", type=Path)
    parser.add_argument("--damping", type=float, default=0.1, help="times each layer's mean eigenvalue")
    parser.add_argument("--queries", type=int, help="score the first ones only")
    parser.add_argument("--steps", type=int, default=2, help="of conjugate gradients")
    parser.add_argument("--documents", type=int, default=300, help="whose Gauss-Newton matrix is inverted")
    parser.add_argument("--solver", default="cg", choices=("cg", "sgd"))
    parser.add_argument("--rate", type=float, default=0.01, help="of sgd")
    parser.add_argument("--projection", type=int, default=16)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("HF_DATASETS_CACHE", str(arguments.work / "cache"))
    scores_NQ = METHODS[arguments.method](arguments)
    np.save(arguments.out, scores_NQ.T)


if __name__ == "__main__":
    main()
