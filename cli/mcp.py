"""`gindex mcp`."""

import click

from gindex.distribution import install_hint
from gindex.errors import MissingDependencyError

from .command import GindexCommand
from .options import base_option, device_option, is_address, key_option, model_option, opening, permission_options


@click.command(cls=GindexCommand)
@click.argument("index")
@model_option
@base_option
@device_option
@permission_options
@key_option
def mcp(index: str, model: str | None, device: str, api_key: str | None) -> None:
    """Offer search and explain to assistants, as tools of the Model Context Protocol.

    INDEX is a folder or http://host:port/name. Speaks over standard input and output: name this command in the settings
    of an assistant.

    \b
    Example:
        gindex mcp runs/corpus
        gindex mcp http://127.0.0.1:8080/corpus
    """  # noqa: D301 \b keeps click from wrapping the lines
    try:
        from gindex.serve.mcp_tools import make_tools
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "gindex":
            raise
        raise MissingDependencyError(
            field="gindex mcp", expected=f"the package {error.name}", found="none", remedy=install_hint("mcp")
        ) from error
    if is_address(index):
        from gindex.client import Client

        make_tools(Client(index, api_key=api_key)).run()
    else:
        from gindex.index import GradientIndex

        make_tools(GradientIndex.open(index, model=model, device=device, **opening())).run()
