"""`gindex study`: studies of influence that were published, on an index of one's own."""

from collections.abc import Callable, Sequence
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
from gindex.queries.files import read_queries

from .command import GindexCommand, GindexGroup
from .lab_options import device_options, index_argument, joined, open_index, queries_option, report_options
from .options import Decorated, made, model_option, option, settings
from .progress import terminal_progress
from .reports import check_report, deliver

if TYPE_CHECKING:
    from gindex.queries.query import Query


def study_options(config: type, name: str) -> Callable[[Decorated], Decorated]:
    """Give a command the options of a study's settings, and those that all studies have."""
    return joined(settings(config), device_options, report_options(f"{name}.html"))


@click.command(cls=GindexCommand)
@index_argument
@queries_option
@study_options(SparsityConfig, "sparsity")
@model_option
def sparsity(index: Path, queries: Path | None, **given: Any) -> None:
    """Measure how few documents of INDEX carry the influence on a query.

    Reports the share of the top 0.01 to 10% of the parts, and fits a power law to the tail, with its uncertainty and
    whether it can be ruled out.

    \b
    Example:
        gindex study sparsity runs/corpus
        gindex study sparsity runs/corpus --queries queries.jsonl --parts 20000 --out sparsity.html
    """  # noqa: D301 \b keeps click from wrapping the lines
    asked = read_queries(queries) if queries is not None else None
    check_report(given)

    from gindex.lab.studies.sparsity import study_sparsity

    config = made(SparsityConfig, given)
    deliver(study_sparsity(open_index(index, given), config, asked, terminal_progress()), given)


@click.command(cls=GindexCommand)
@index_argument
@option(
    "--queries",
    multiple=True,
    metavar="TYPE=FILE",
    help="A type of queries and its JSON lines, each a query of any form; can be given for several types.",
)
@study_options(LayersConfig, "layers")
@model_option
def layers(index: Path, queries: tuple[str, ...], **given: Any) -> None:
    """Measure in which layers of the model the influence sits, by type of query.

    Without --queries parts of INDEX are drawn. How well the model predicts them makes three types, and their words in
    random order a fourth.

    \b
    Example:
        gindex study layers runs/corpus
        gindex study layers runs/corpus --queries facts=facts.jsonl --queries code=code.jsonl
    """  # noqa: D301 \b keeps click from wrapping the lines
    asked = _typed_queries(queries)
    check_report(given)

    from gindex.lab.studies.layers import study_layers

    config = made(LayersConfig, given)
    deliver(study_layers(open_index(index, given), config, asked, terminal_progress()), given)


@click.command("word-order", cls=GindexCommand)
@index_argument
@option(
    "--pairs",
    type=click.Path(path_type=Path),
    help="JSON lines with two phrases, first and second, and perhaps a document that has both in this order.",
)
@study_options(WordOrderConfig, "word-order")
@model_option
def word_order(index: Path, pairs: Path | None, **given: Any) -> None:
    """Measure how influence falls when the phrases of a document are swapped, taken out or shuffled.

    The query is the first phrase with the second as its completion. Without --pairs they are what documents drawn
    from INDEX begin with.

    \b
    Example:
        gindex study word-order runs/corpus --phrase-words 4
        gindex study word-order runs/corpus --pairs pairs.jsonl
    """  # noqa: D301 \b keeps click from wrapping the lines
    check_report(given)

    from gindex.lab.studies.word_order import read_pairs, study_word_order

    config = made(WordOrderConfig, given)
    phrases = read_pairs(pairs) if pairs is not None else None
    deliver(study_word_order(open_index(index, given), config, phrases, terminal_progress()), given)


@click.command("cross-lingual", cls=GindexCommand)
@index_argument
@study_options(CrossLingualConfig, "cross-lingual")
@model_option
def cross_lingual(index: Path, **given: Any) -> None:
    """Measure the influence of passages on their translations.

    Documents of INDEX need two metadata fields: their language, and the name of the passage, which translations share.

    \b
    Example:
        gindex study cross-lingual runs/manpages
        gindex study cross-lingual runs/bible --language-field lang --passage-field verse
    """  # noqa: D301 \b keeps click from wrapping the lines
    check_report(given)

    from gindex.lab.studies.cross_lingual import study_cross_lingual

    config = made(CrossLingualConfig, given)
    deliver(study_cross_lingual(open_index(index, given), config, terminal_progress()), given)


@click.command(cls=GindexCommand)
@click.argument("smaller", type=click.Path(path_type=Path))
@click.argument("larger", type=click.Path(path_type=Path))
@study_options(ScaleConfig, "scale")
@option(
    "--model", "models", nargs=2, metavar="SMALLER LARGER",
    help="Folders or hub names of both models, where they have moved since the builds.",
)  # fmt: skip
def scale(smaller: Path, larger: Path, models: tuple[str, str] | None, **given: Any) -> None:
    """Compare the indexes SMALLER and LARGER of two models over the same corpus.

    Measures how many of a query's words the most influential documents of each share with it, and how influence ranks
    against BM25.

    \b
    Example:
        gindex study scale runs/corpus-small runs/corpus-large
        gindex study scale runs/corpus-small runs/corpus-large --documents 20000 --sample 64
    """  # noqa: D301 \b keeps click from wrapping the lines
    check_report(given)

    from gindex.lab.studies.scale import study_scale

    config = made(ScaleConfig, given)
    first, second = models or (None, None)
    indexes = (open_index(smaller, given | {"model": first}), open_index(larger, given | {"model": second}))
    deliver(study_scale(*indexes, config, terminal_progress()), given)


@click.command(cls=GindexCommand)
@index_argument
@study_options(MemorizationConfig, "memorization")
@model_option
def memorization(index: Path, **given: Any) -> None:
    """Compare self-influence with how far the model completes documents of INDEX verbatim.

    \b
    Example:
        gindex study memorization runs/corpus
        gindex study memorization runs/corpus --prompt-tokens 32 --completion-tokens 32
    """  # noqa: D301 \b keeps click from wrapping the lines
    check_report(given)

    from gindex.lab.studies.memorization import study_memorization

    config = made(MemorizationConfig, given)
    deliver(study_memorization(open_index(index, given), config, terminal_progress()), given)


def _typed_queries(given: Sequence[str]) -> "dict[str, list[Query]] | None":
    found: dict[str, list[Query]] = {}
    for entry in given:
        name, equals, file = entry.partition("=")
        if not equals or not name or not file:
            raise click.BadParameter(f"expected TYPE=FILE, found {entry!r}", param_hint="--queries")
        found.setdefault(name, []).extend(read_queries(Path(file)))
    return found or None


@click.group(
    cls=GindexGroup,
    sections={
        "studies of an index": [sparsity, layers, word_order, cross_lingual, memorization],
        "studies of two indexes": [scale],
    },
)
def study() -> None:
    """Repeat a published study of influence on an index of yours, and write a report.

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
