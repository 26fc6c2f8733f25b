"""`gindex check-model`."""

from typing import TYPE_CHECKING, Any

import click

from gindex.config import (
    PERMISSIONS,
    BuildConfig,
    CorpusConfig,
    CurvatureConfig,
    ModelConfig,
    VectorConfig,
)

from .command import GindexCommand
from .options import json_option, made, permission_options, permissions, settings
from .progress import terminal_progress
from .render import duration, json_text
from .wording import in_options

if TYPE_CHECKING:
    from gindex.check.result import Finding, ModelCheck

NAME_WIDTH, VERDICT_WIDTH = 18, 9


@click.command("check-model", cls=GindexCommand)
@click.argument("model", required=True)
@click.argument("corpus", nargs=-1)
@json_option
@settings(CorpusConfig)
@settings(ModelConfig, leave_out=("name", *PERMISSIONS))
@permission_options
@settings(CurvatureConfig)
@settings(VectorConfig)
@settings(BuildConfig)
def check_model(model: str, corpus: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Try a model before days are spent on an index of it.

    MODEL is the folder of a model or its name on the hub, CORPUS what `gindex build` takes. Three documents of the
    corpus, or made-up ones where none is given, go through the passes that a build makes: their gradients are compared
    with those of autograd, and with those of the same documents alone, by other attention, and in other number formats.
    Every line says ok, warning or no, and the last one whether to go on. The exit code is 0 to go, else that of the
    error that a build would end with. Options are those of `gindex build`.

    \b
    Example:
        gindex check-model path/to/model
        gindex check-model path/to/model corpus.jsonl --max-tokens 1024
        gindex check-model path/to/adapter corpus.jsonl --sample 1000
        gindex check-model owner/name --device cuda --dtype bfloat16 --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = BuildConfig(
        corpus=made(CorpusConfig, options),
        model=made(ModelConfig, options, name=model, **permissions()),
        curvature=made(CurvatureConfig, options),
        vectors=made(VectorConfig, options),
        **{name: options[name] for name in ("batch_tokens", "memory", "seed")},
    )
    from gindex.check.run import check_model as run

    result = run(config, corpus, progress=terminal_progress())
    click.echo(json_text(result.record(), indent=1) if as_json else table(result))
    click.get_current_context().exit(result.exit_code)


def table(result: "ModelCheck") -> str:
    """Write the findings under their headings, and what follows from them."""
    lines, section = [], ""
    for finding in result.findings:
        if finding.section != section:
            lines += [""] * bool(section) + [click.style(finding.section, bold=True)]
            section = finding.section
        lines.append(_line(finding))
    lines += ["", f"{in_options(result.conclusion)} ({duration(result.seconds)})"]
    return "\n".join(lines)


def _line(finding: "Finding") -> str:
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    said = in_options(f"{finding.found}{remedy}")
    return f"  {finding.verdict:<{VERDICT_WIDTH}}  {finding.name:<{NAME_WIDTH}}  {said}"
