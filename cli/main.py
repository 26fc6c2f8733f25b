"""The `gindex` command and its subcommands."""

from importlib.metadata import version

import click

from .build import build
from .info import info
from .search import search


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("gindex"), prog_name="gindex")
def main() -> None:
    """Find the training documents that made a language model say something.

    \b
    Example:
        gindex build corpus.jsonl --model path/to/model --out runs/corpus
        gindex search runs/corpus "A compiler is" --completion " a program" -k 5
        gindex info runs/corpus
    """  # noqa: D301 \b keeps click from wrapping the lines


for command in (build, search, info):
    main.add_command(command)
