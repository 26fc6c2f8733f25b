"""`gindex serve`."""

import sys
from pathlib import Path
from typing import Any

import click

from gindex.distribution import install_hint
from gindex.errors import ConfigError, MissingDependencyError
from gindex.http.loopback import is_loopback
from gindex.serve.config import ServeConfig

from .command import GindexCommand, config_option, permission_options, permissions

POSITIVE, COUNT = click.FloatRange(min=0), click.IntRange(min=1)


@click.command(cls=GindexCommand)
@click.argument("indexes", nargs=-1, required=True, metavar="INDEX...")
@config_option(ServeConfig, "host")
@config_option(ServeConfig, "port", type=click.IntRange(0, 65535))
@config_option(ServeConfig, "device")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="[NAME=]PLACE",
    help="Folder or hub name of the model, where it has moved since the build: of the index NAME, or of all.",
)
@permission_options
@click.option("--api-key-file", type=click.Path(path_type=Path), help="Keys that callers must have: NAME SCOPES KEY in "
              "each line, scopes read, write or read,write.")  # fmt: skip
@click.option("--writable", is_flag=True, help="Let callers with the scope write add and delete documents.")
@click.option("--no-model", is_flag=True, help="Answer ready vectors only: no model is loaded, no prompt is taken.")
@click.option("--no-page", is_flag=True, help="Leave the page at / out.")
@click.option("--cors-origin", "cors_origins", multiple=True, help="A web site whose scripts may call the service.")
@click.option("--allowed-host", "allowed_hosts", multiple=True, help="Host name that callers may ask by; "
              "give it again for more. Without it a loopback address answers to localhost and its like, an open one to "
              "every name.")  # fmt: skip
@config_option(ServeConfig, "batch", type=COUNT)
@config_option(ServeConfig, "window_ms", type=POSITIVE)
@config_option(ServeConfig, "queue", type=COUNT)
@config_option(ServeConfig, "queue_seconds", type=POSITIVE)
@config_option(ServeConfig, "gradient_seconds", type=POSITIVE)
@config_option(ServeConfig, "search_seconds", type=POSITIVE)
@config_option(ServeConfig, "slow_queue", type=COUNT)
@config_option(ServeConfig, "slow_queue_seconds", type=POSITIVE)
@config_option(ServeConfig, "exact_seconds", type=POSITIVE)
@config_option(ServeConfig, "body_seconds", type=POSITIVE)
@config_option(ServeConfig, "max_connections", type=COUNT)
@config_option(ServeConfig, "max_head", type=COUNT)
@config_option(ServeConfig, "max_headers", type=COUNT)
@config_option(ServeConfig, "reload_seconds", type=POSITIVE)
@config_option(ServeConfig, "max_body", type=COUNT)
@config_option(ServeConfig, "max_k", type=COUNT)
@config_option(ServeConfig, "max_queries", type=COUNT)
@config_option(ServeConfig, "max_tokens", type=COUNT)
@config_option(ServeConfig, "max_documents", type=COUNT)
@config_option(ServeConfig, "rate", type=POSITIVE)
def serve(
    indexes: tuple[str, ...],
    models: tuple[str, ...],
    api_key_file: Path | None,
    writable: bool,
    no_model: bool,
    no_page: bool,
    cors_origins: tuple[str, ...],
    allowed_hosts: tuple[str, ...],
    **settings: Any,
) -> None:
    """Answer searches of one or more INDEXes over HTTP, and show a page to look at.

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
    config = ServeConfig(**settings, **permissions())
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
