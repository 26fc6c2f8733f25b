"""`gindex serve`."""

import sys
from pathlib import Path
from typing import Any

import click

from gindex.config import PERMISSIONS
from gindex.distribution import install_hint
from gindex.errors import ConfigError, MissingDependencyError
from gindex.http.loopback import is_loopback
from gindex.serve.config import ADDRESS, MODEL, ServeConfig

from .command import GindexCommand
from .options import LOADED, made, option, permission_options, permissions, settings

ACCESS = "who may ask"
"""Heading of the options that say who may ask for what."""


@click.command(cls=GindexCommand)
@click.argument("indexes", nargs=-1, required=True, metavar="INDEX...")
@settings(ServeConfig, leave_out=PERMISSIONS)
@option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]PLACE",
    group=MODEL,
    needs=(LOADED,),
    unset="where the build recorded it",
    help="Folder or hub name of the model, where it has moved since the build: of the index NAME, or of all.",
)
@permission_options
@option(
    "--no-model",
    is_flag=True,
    group=MODEL,
    help="Answer ready vectors only: no model is loaded, no prompt is taken.",
)
@option(
    "--api-key-file",
    type=click.Path(path_type=Path),
    group=ACCESS,
    unset="none: anyone may ask",
    help="Keys that callers must have: NAME SCOPES KEY in each line, scopes read, write or read,write.",
)
@option("--writable", is_flag=True, group=ACCESS, help="Let callers with the scope write add and delete documents.")
@option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    group=ACCESS,
    unset="none",
    help="A web site whose scripts may call the service; give it again for more.",
)
@option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="HOST",
    group=ACCESS,
    unset="of a loopback address localhost and its like, of an open one all",
    help="Host name that callers may ask by; give it again for more.",
)
@option("--no-page", is_flag=True, group=ADDRESS, help="Leave the page at / out.")
def serve(
    indexes: tuple[str, ...],
    models: tuple[str, ...],
    api_key_file: Path | None,
    writable: bool,
    no_model: bool,
    no_page: bool,
    cors_origins: tuple[str, ...],
    allowed_hosts: tuple[str, ...],
    **given: Any,
) -> None:
    """Answer searches over HTTP, and show a page to search with.

    INDEX is a folder, whose last part is the index's name, or NAME=FOLDER. A new version of an index (after gindex add,
    delete, compact) is switched to while requests go on.

    \b
    Example:
        gindex serve runs/corpus
        gindex serve runs/corpus --model path/to/model
        gindex serve small=runs/corpus runs/other --port 9000 --api-key-file keys.txt --writable
        gindex serve runs/corpus --no-model --host 0.0.0.0 --api-key-file keys.txt --rate 20
        gindex serve runs/corpus --allowed-host gindex.example.org
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = made(ServeConfig, given, **permissions())
    try:
        from gindex.serve.app import make_app
        from gindex.serve.hosts import Hosts
        from gindex.serve.server import Server, bind
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "gindex":
            raise
        raise MissingDependencyError(
            field="gindex serve", expected=f"the package {error.name}", found="none", remedy=install_hint("serve")
        ) from error
    from gindex.serve.keys import Keys
    from gindex.serve.served import places_of
    from gindex.serve.service import Service
    from gindex.store.layout import Layout
    from gindex.store.versions import latest_version

    places = places_of(indexes, models)
    for place in places:
        latest_version(Layout(place.path))
    keys = None if api_key_file is None else Keys.read(api_key_file)
    if keys is None and not is_loopback(config.host):
        if writable:
            raise ConfigError(
                field="--writable", expected=f"--api-key-file on the open address {config.host}", remedy="give one"
            )
        click.echo(f"warning: {config.host} is open to others, and without --api-key-file anyone may ask", err=True)
    service = Service(places, config, keys=keys, writable=writable, prompts=not no_model)
    app = make_app(service, hosts=Hosts(config.host, allowed_hosts), cors_origins=cors_origins, page=not no_page)
    listening = bind(config)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"gindex: serving {', '.join(place.name for place in places)} at http://{shown}:{port}/", err=True)
    server = Server(service, app)
    server.run(sockets=[listening])
    sys.exit(0 if server.started else 1)
