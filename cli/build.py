"""`gindex build`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gindex.config import (
    CORPUS,
    PERMISSIONS,
    BuildConfig,
    CorpusConfig,
    CurvatureConfig,
    FidelityConfig,
    ModelConfig,
    VectorConfig,
)
from gindex.search_options import OUTPUT

from .command import GindexCommand
from .early_checks import check_sources
from .options import made, option, permission_options, permissions, setting, settings
from .progress import terminal_progress
from .render import duration, size, untracked_lines
from .reports import corpus_notes

if TYPE_CHECKING:
    from gindex.build.plan import BuildPlan


@click.command(cls=GindexCommand)
@click.argument("corpus", nargs=-1, required=True)
@setting(ModelConfig, "name", "--model", required=True, show_default=False)
@option(
    "--out",
    type=click.Path(path_type=Path),
    group=OUTPUT,
    help="Index directory to make. Required unless `dry_run` is given.",
)
@option("--dry-run", is_flag=True, group=OUTPUT, help="Print what would be done and what it would cost, then stop.")
@option("--json", "as_json", is_flag=True, group=OUTPUT, needs=("dry_run",), help="Print the plan as JSON.")
@settings(CorpusConfig)
@option(
    "--strict",
    is_flag=True,
    group=CORPUS,
    help="Stop at a document whose gradient is not finite, instead of leaving it out.",
)
@settings(ModelConfig, leave_out=("name", *PERMISSIONS))
@permission_options
@settings(CurvatureConfig)
@setting(BuildConfig, "seed")
@settings(VectorConfig)
@settings(BuildConfig, leave_out=("seed",))
@settings(FidelityConfig, prefix="fidelity_")
def build(
    corpus: tuple[str, ...], out: Path | None, strict: bool, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Build an index of documents.

    CORPUS is files (.jsonl, .json, .csv, .tsv, .parquet, .arrow, .feather, text), folders, addresses of either
    (s3://bucket/folder, https://host/file.jsonl), or Hugging Face datasets (owner/name, or with configuration and split
    owner/name/configuration:split). Files may be compressed (.gz, .bz2, .xz, .zst). What is left out of a folder is
    named on standard error. A build that was interrupted goes on when the same command is given again.

    \b
    Example:
        gindex build corpus.jsonl --model path/to/model --out runs/corpus
        gindex build notes/ --model path/to/model --out runs/notes --max-tokens 256 --fit-documents 500
        gindex build corpus.parquet --text-field body --model path/to/model --dry-run
        gindex build owner/name/en:train --sample 10000 --model path/to/model --out runs/english
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = _config(options)
    check_sources(corpus)
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
    return BuildConfig(
        corpus=made(CorpusConfig, options),
        model=made(ModelConfig, options, **permissions()),
        curvature=made(CurvatureConfig, options),
        vectors=made(VectorConfig, options),
        fidelity=made(FidelityConfig, options, prefix="fidelity_"),
        **{name: options[name] for name in ("batch_tokens", "memory", "seed")},
    )


def _print_plan(plan: "BuildPlan", as_json: bool, notes: Sequence[str] = ()) -> None:
    if as_json:
        from dataclasses import asdict

        click.echo(json.dumps(asdict(plan) | ({"notes": notes} if notes else {}), indent=1))
        return
    share = plan.tracked_parameters / plan.parameters
    click.echo(f"corpus     {plan.documents:,} documents, {plan.parts:,} parts, {plan.tokens:,} tokens")
    rounds = f", in {plan.fit_rounds} rounds of layers" if plan.fit_rounds > 1 else ""
    click.echo(f"fit        {plan.fit_documents:,} documents, {plan.fit_tokens:,} tokens{rounds}")
    body = f"{plan.coverage.share:.1%} of the body"
    click.echo(f"layers     {plan.tracked_layers} tracked, {share:.1%} of {plan.parameters:,} parameters, {body}")
    shares = (f"{kind} {of.tracked / of.parameters:.1%} of {of.parameters:,}" for kind, of in plan.kinds.items())
    click.echo(f"           by kind: {', '.join(shares)}")
    if plan.structures:
        counts = (f"{count} of {structure}" for structure, count in plan.structures.items())
        click.echo(f"           sides: {', '.join(counts)}")
    for line in untracked_lines(plan.coverage.record()):
        click.echo(f"           {line}")
    if plan.coverage.warning:
        click.echo(f"gindex: warning: {plan.coverage.warning}", err=True)
    phases = ", ".join(f"{name} {duration(seconds)}" for name, seconds in plan.seconds.items())
    click.echo(f"time       about {duration(sum(plan.seconds.values()))} ({phases})")
    click.echo(f"memory     about {size(plan.memory_bytes)}")
    parts = ", ".join(f"{name} {size(count)}" for name, count in plan.disk_bytes.items())
    click.echo(f"disk       about {size(sum(plan.disk_bytes.values()))} ({parts})")
