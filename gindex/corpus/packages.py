"""Optional packages of file formats, imported when a file needs them."""

from importlib import import_module
from typing import Any

from gindex.distribution import install_hint
from gindex.errors import MissingDependencyError

_HINTS = {"fsspec": install_hint("remote"), "PIL": install_hint("images")}
"""How to install a package that `corpora` does not bring."""


def require(package: str, location: str) -> Any:
    """Import and return the module `package`, needed to read or write what is at `location`.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    name = package.partition(".")[0]
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            field=location,
            expected=f"the package {name}",
            found="none installed",
            remedy=_HINTS.get(name) or install_hint("corpora"),
        ) from error
