"""`gindex build`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gindex.config import (
    BIT_WIDTHS,
    CURVATURES,
    DTYPES,
    PROJECTIONS,
    BuildConfig,
    CorpusConfig,
    CurvatureConfig,
    FidelityConfig,
    ModelConfig,
    VectorConfig,
)

from .command import GindexCommand, config_option, permission_options, permissions
from .progress import terminal_progress
from .render import duration, size, untracked_lines
from .reports import corpus_notes

if TYPE_CHECKING:
    from gindex.build.plan import BuildPlan


@click.command(cls=GindexCommand)
@click.argument("corpus", nargs=-1, required=True)
@click.option("--model", "name", required=True, help=str(ModelConfig.__dataclass_fields__["name"].metadata["help"]))
@click.option("--out", type=click.Path(path_type=Path), help="Index directory to make. Required unless --dry-run.")
@config_option(CorpusConfig, "text_field")
@config_option(CorpusConfig, "id_field")
@config_option(CorpusConfig, "max_tokens", type=int)
@config_option(CurvatureConfig, "curvature", type=click.Choice(CURVATURES.names()))
@config_option(CurvatureConfig, "fit_documents", type=int)
@config_option(CurvatureConfig, "damping_scale", type=float)
@config_option(CurvatureConfig, "index_damping", type=float)
@config_option(CurvatureConfig, "calibration_documents", type=int)
@config_option(VectorConfig, "dimension", type=int)
@config_option(VectorConfig, "rank_fraction", type=float)
@click.option("--full-rank", is_flag=True, help="Keep all of both eigenbases: the same as --rank-fraction 1.")
@config_option(VectorConfig, "bits", type=click.Choice([str(bits) for bits in BIT_WIDTHS]))
@config_option(VectorConfig, "projection", type=click.Choice(PROJECTIONS.names()))
@config_option(ModelConfig, "device")
@config_option(ModelConfig, "dtype", type=click.Choice(DTYPES))
@permission_options
@config_option(ModelConfig, "untrack", multiple=True, metavar="PATTERN")
@config_option(ModelConfig, "track", multiple=True, metavar="PATTERN")
@config_option(BuildConfig, "batch_tokens", type=int)
@config_option(BuildConfig, "memory", type=float)
@config_option(BuildConfig, "seed", type=int)
@config_option(FidelityConfig, "queries", prefix="fidelity_", type=int)
@config_option(FidelityConfig, "parts", prefix="fidelity_", type=int)
@click.option("--strict", is_flag=True, help="Stop at a document whose gradient is not finite, not pass over it.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and what it would cost, then stop.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print the plan as JSON.")
def build(
    corpus: tuple[str, ...], out: Path | None, strict: bool, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Build an index over CORPUS: files (.jsonl, .json, .csv, .tsv, .parquet, text), folders, or Hugging Face datasets.

    Files may be compressed (.gz, .bz2, .xz, .zst). What is left out of a folder is named on standard error. A build
    that was interrupted goes on when the same command is given again.

    \b
    Example:
        gindex build corpus.jsonl --model path/to/model --out runs/corpus
        gindex build notes/ --model path/to/model --out runs/notes --max-tokens 256 --fit-documents 500
        gindex build corpus.parquet --text-field body --model path/to/model --dry-run
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = _config(options)
    if dry_run:
        from gindex.build.run import plan_build

        with corpus_notes() as notes:
            plan = plan_build(corpus, config, terminal_progress())
        _print_plan(plan, as_json, notes)
        return
    if out is None:
        raise click.UsageError("Missing option '--out': where to put the index.")
    from gindex.build.run import run_build
    from gindex.index import GradientIndex

    manifest = run_build(
        corpus, out, config, strict=strict, progress=terminal_progress(), on_plan=lambda plan: _print_plan(plan, False)
    )
    for reason in manifest.skipped.values():
        click.echo(f"left out: {reason}")
    disk = sum(GradientIndex.open(out).info()["disk_bytes"].values())
    click.echo(f"{out}: {manifest.documents['documents']:,} documents indexed, {size(disk)}")


def _config(options: dict[str, Any]) -> BuildConfig:
    if options["full_rank"]:
        if options["rank_fraction"] is not None:
            raise click.UsageError("--full-rank and --rank-fraction exclude each other.")
        options = options | {"rank_fraction": 1.0}

    def pick(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names}

    return BuildConfig(
        corpus=CorpusConfig(**pick("text_field", "id_field", "max_tokens")),
        model=ModelConfig(**pick("name", "device", "dtype", "untrack", "track"), **permissions()),
        curvature=CurvatureConfig(
            **pick("curvature", "fit_documents", "damping_scale", "index_damping", "calibration_documents")
        ),
        vectors=VectorConfig(**pick("dimension", "rank_fraction", "projection"), bits=int(options["bits"])),
        fidelity=FidelityConfig(queries=options["fidelity_queries"], parts=options["fidelity_parts"]),
        **pick("batch_tokens", "memory", "seed"),
    )


def _print_plan(plan: "BuildPlan", as_json: bool, notes: Sequence[str] = ()) -> None:
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(plan) | ({"notes": notes} if notes else {}), indent=1))
        return
    share = plan.tracked_parameters / plan.parameters
    click.echo(f"corpus     {plan.documents:,} documents, {plan.parts:,} parts, {plan.tokens:,} tokens")
    click.echo(f"fit        {plan.fit_documents:,} documents, {plan.fit_tokens:,} tokens")
    body = f"{plan.coverage.share:.1%} of the body"
    click.echo(f"layers     {plan.tracked_layers} tracked, {share:.1%} of {plan.parameters:,} parameters, {body}")
    for line in untracked_lines(plan.coverage.record()):
        click.echo(f"           {line}")
    if plan.coverage.warning:
        click.echo(f"gindex: warning: {plan.coverage.warning}", err=True)
    phases = ", ".join(f"{name} {duration(seconds)}" for name, seconds in plan.seconds.items())
    click.echo(f"time       about {duration(sum(plan.seconds.values()))} ({phases})")
    click.echo(f"memory     about {size(plan.memory_bytes)}")
    parts = ", ".join(f"{name} {size(count)}" for name, count in plan.disk_bytes.items())
    click.echo(f"disk       about {size(sum(plan.disk_bytes.values()))} ({parts})")
