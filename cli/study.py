"""`gindex study`: what the literature asked of influence, asked of an index."""

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gindex.lab.studies.config import (
    CrossLingualConfig,
    LayersConfig,
    MemorizationConfig,
    ScaleConfig,
    SparsityConfig,
    WordOrderConfig,
)

from .command import Decorated, GindexCommand, config_option, permission_options, permissions
from .progress import terminal_progress
from .queries import read_queries
from .render import json_text

if TYPE_CHECKING:
    from gindex.lab.studies.report import Report
    from gindex.queries.query import Query


@click.group()
def study() -> None:
    """Ask of an index what the literature asked of influence; write a report.

    Each study writes one page, which loads nothing from elsewhere, and its numbers beside it as JSON.

    \b
    Example:
        gindex study sparsity runs/corpus --out sparsity.html
        gindex study layers runs/corpus --out layers.html
        gindex study word-order runs/corpus
        gindex study cross-lingual runs/manpages
        gindex study scale runs/corpus-small runs/corpus-large
        gindex study memorization runs/corpus
    """  # noqa: D301 \b keeps click from wrapping the lines


def study_options(config: type, name: str) -> Callable[[Decorated], Decorated]:
    """Give a command the options of a study's config, and those that all studies have."""

    def decorate(command: Decorated) -> Decorated:
        options = [
            *(config_option(config, field.name) for field in fields(config)),
            click.option(
                "--out",
                type=click.Path(path_type=Path, dir_okay=False),
                default=f"{name}.html",
                show_default=True,
                help="Page to write; the numbers go beside it, in a file ending in .json.",
            ),
            click.option(
                "--device", default="auto", show_default=True, help="Device of the passes: auto, cpu, cuda, ..."
            ),
            permission_options,
            click.option("--json", "as_json", is_flag=True, help="Print the numbers as one JSON object."),
        ]
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


model_option = click.option("--model", help="Folder or hub name of the model, where it has moved since the build.")
index_argument = click.argument("index", type=click.Path(path_type=Path))


@study.command(cls=GindexCommand)
@index_argument
@click.option("--queries", type=click.Path(path_type=Path), help="JSON lines with id, prompt and completion.")
@study_options(SparsityConfig, "sparsity")
@model_option
def sparsity(index: Path, queries: Path | None, **options: Any) -> None:
    """Measure how few documents of INDEX carry the influence on a query.

    Reports the share of the top 0.01 to 10% of the parts, and fits a power law to the tail, with its uncertainty and
    whether it can be ruled out.

    \b
    Example:
        gindex study sparsity runs/corpus
        gindex study sparsity runs/corpus --queries queries.jsonl --parts 20000 --out sparsity.html
    """  # noqa: D301 \b keeps click from wrapping the lines
    asked = read_queries(queries) if queries is not None else None
    _check_out(options["out"])

    from gindex.lab.studies.sparsity import study_sparsity

    config = SparsityConfig(**_settings(SparsityConfig, options))
    _write(study_sparsity(_open(index, options), config, asked, terminal_progress()), options)


@study.command(cls=GindexCommand)
@index_argument
@click.option(
    "--queries",
    multiple=True,
    metavar="TYPE=FILE",
    help="A type of queries and its JSON lines with id, prompt and completion; can be given for several types.",
)
@study_options(LayersConfig, "layers")
@model_option
def layers(index: Path, queries: tuple[str, ...], **options: Any) -> None:
    """Measure in which layers of the model the influence sits, by type of query.

    Without --queries parts of INDEX are drawn. How well the model predicts them makes three types, and their words in
    random order a fourth.

    \b
    Example:
        gindex study layers runs/corpus
        gindex study layers runs/corpus --queries facts=facts.jsonl --queries code=code.jsonl
    """  # noqa: D301 \b keeps click from wrapping the lines
    asked = _typed_queries(queries)
    _check_out(options["out"])

    from gindex.lab.studies.layers import study_layers

    config = LayersConfig(**_settings(LayersConfig, options))
    _write(study_layers(_open(index, options), config, asked, terminal_progress()), options)


@study.command("word-order", cls=GindexCommand)
@index_argument
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    help="JSON lines with two phrases, first and second, and perhaps a document that has both in this order.",
)
@study_options(WordOrderConfig, "word-order")
@model_option
def word_order(index: Path, pairs: Path | None, **options: Any) -> None:
    """Measure how influence falls when the phrases of a document are swapped, taken out or shuffled.

    The query is the first phrase with the second as its completion. Without --pairs they are what documents drawn
    from INDEX begin with.

    \b
    Example:
        gindex study word-order runs/corpus --phrase-words 4
        gindex study word-order runs/corpus --pairs pairs.jsonl
    """  # noqa: D301 \b keeps click from wrapping the lines
    _check_out(options["out"])

    from gindex.lab.studies.word_order import read_pairs, study_word_order

    config = WordOrderConfig(**_settings(WordOrderConfig, options))
    given = read_pairs(pairs) if pairs is not None else None
    _write(study_word_order(_open(index, options), config, given, terminal_progress()), options)


@study.command("cross-lingual", cls=GindexCommand)
@index_argument
@study_options(CrossLingualConfig, "cross-lingual")
@model_option
def cross_lingual(index: Path, **options: Any) -> None:
    """Measure the influence of passages on their translations.

    Documents of INDEX need two metadata fields: their language, and the name of the passage, which translations share.

    \b
    Example:
        gindex study cross-lingual runs/manpages
        gindex study cross-lingual runs/bible --language-field lang --passage-field verse
    """  # noqa: D301 \b keeps click from wrapping the lines
    _check_out(options["out"])

    from gindex.lab.studies.cross_lingual import study_cross_lingual

    config = CrossLingualConfig(**_settings(CrossLingualConfig, options))
    _write(study_cross_lingual(_open(index, options), config, terminal_progress()), options)


@study.command(cls=GindexCommand)
@click.argument("smaller", type=click.Path(path_type=Path))
@click.argument("larger", type=click.Path(path_type=Path))
@study_options(ScaleConfig, "scale")
@click.option(
    "--model", "models", nargs=2, metavar="SMALLER LARGER",
    help="Folders or hub names of both models, where they have moved since the builds.",
)  # fmt: skip
def scale(smaller: Path, larger: Path, models: tuple[str, str] | None, **options: Any) -> None:
    """Compare the indexes SMALLER and LARGER of two models over the same corpus.

    Measures how many of a query's words the most influential documents of each share with it, and how influence ranks
    against BM25.

    \b
    Example:
        gindex study scale runs/corpus-small runs/corpus-large
        gindex study scale runs/corpus-small runs/corpus-large --documents 20000 --sample 64
    """  # noqa: D301 \b keeps click from wrapping the lines
    _check_out(options["out"])

    from gindex.lab.studies.scale import study_scale

    config = ScaleConfig(**_settings(ScaleConfig, options))
    first, second = models or (None, None)
    indexes = (_open(smaller, options | {"model": first}), _open(larger, options | {"model": second}))
    _write(study_scale(*indexes, config, terminal_progress()), options)


@study.command(cls=GindexCommand)
@index_argument
@study_options(MemorizationConfig, "memorization")
@model_option
def memorization(index: Path, **options: Any) -> None:
    """Compare self-influence with how far the model completes documents of INDEX verbatim.

    \b
    Example:
        gindex study memorization runs/corpus
        gindex study memorization runs/corpus --prompt-tokens 32 --completion-tokens 32
    """  # noqa: D301 \b keeps click from wrapping the lines
    _check_out(options["out"])

    from gindex.lab.studies.memorization import study_memorization

    config = MemorizationConfig(**_settings(MemorizationConfig, options))
    _write(study_memorization(_open(index, options), config, terminal_progress()), options)


def _typed_queries(given: Sequence[str]) -> "dict[str, list[Query]] | None":
    found: dict[str, list[Query]] = {}
    for entry in given:
        name, equals, file = entry.partition("=")
        if not equals or not name or not file:
            raise click.BadParameter(f"expected TYPE=FILE, found {entry!r}", param_hint="--queries")
        found.setdefault(name, []).extend(read_queries(Path(file)))
    return found or None


def _settings(config: type, options: dict[str, Any]) -> dict[str, Any]:
    return {field.name: options[field.name] for field in fields(config)}


def _open(index: Path, options: dict[str, Any]) -> Any:
    from gindex.index import GradientIndex

    return GradientIndex.open(index, model=options.get("model"), device=options["device"], **permissions())


def _check_out(out: Path) -> None:
    """Check, before any work, that the report can be written."""
    if out.suffix not in (".html", ".htm"):
        raise click.BadParameter(f"expected a file ending in .html, found {out}", param_hint="--out")
    if not out.absolute().parent.is_dir():
        raise click.BadParameter(f"expected an existing folder, found none at {out.parent}", param_hint="--out")


def _put(content: str, path: Path) -> None:
    path.write_text(content, encoding="utf-8")


def _write(report: "Report", options: dict[str, Any]) -> None:
    from gindex.files.atomic import publish
    from gindex.lab.studies.html import study_page

    numbers = json.dumps(report.record(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    out: Path = options["out"]
    for path, content in ((out, study_page(report)), (out.with_suffix(".json"), numbers)):
        publish(path, partial(_put, content))
    if options["as_json"]:
        click.echo(json_text(report.record(), indent=1, allow_nan=False))
    else:
        click.echo("\n".join([*report.findings, f"{out} and {out.with_suffix('.json')}"]))
