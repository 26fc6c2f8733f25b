"""The command `gindex`: the group of its subcommands, which `main` runs."""

import click

from gindex.distribution import VERSION

from .add import add
from .build import build
from .check_model import check_model
from .command import GindexGroup
from .evaluate import evaluate
from .explain import explain
from .index_fields import index_fields
from .info import info
from .mcp import mcp
from .outliers import outliers
from .reindex import reindex
from .score import score
from .search import search
from .serve import serve
from .study import study
from .upkeep import compact, delete, prune, repair, rollback, verify, versions

SECTIONS = {
    "build": [build, check_model],
    "search": [search, score, explain, outliers, info],
    "change": [add, delete, compact, reindex, index_fields, versions, rollback, prune, verify, repair],
    "serve": [serve, mcp],
    "measure": [evaluate, study],
}


@click.group(
    cls=GindexGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(VERSION, prog_name="gindex")
def gindex() -> None:
    """Find the training documents that made a language model say something.

    \b
    Example:
        gindex build corpus.jsonl --model path/to/model --out runs/corpus
        gindex search runs/corpus "A compiler is" --completion " a program" -k 5
        gindex explain runs/corpus compiler "A compiler is" --completion " a program" --html page.html
        gindex serve runs/corpus
        gindex outliers runs/corpus
        gindex info runs/corpus
    """  # noqa: D301 \b keeps click from wrapping the lines
