"""Where the process of `gindex` begins: it is made safe first, and the commands are loaded then.

Imported by the installed command and by nothing else.
"""

import _signal  # type: ignore[import-not-found] # `signal` takes a third of the time until the guard stands

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until then Ctrl-C just ends the process, without a traceback

import os

from . import terminal
from .foreign import refuse_foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(*arguments: "Any", **options: "Any") -> None:
    """Run the command line; arguments are those of the group `commands.gindex`."""
    terminal.guard()
    if os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR"):
        options.setdefault("color", False)
    with terminal.reported():
        refuse_foreign()
        from .commands import gindex

        gindex(*arguments, **options)
