"""Optional packages of file formats, imported when a file needs them."""

from importlib import import_module
from typing import Any

from gindex.distribution import install_hint
from gindex.errors import MissingDependencyError

_EXTRAS = {"fsspec": "remote", "PIL": "images"}
"""Extras that bring a package, where that is not `corpora`."""


def require(package: str, location: str) -> Any:
    """Import and return the module `package`, needed to read or write what is at `location`.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            field=location,
            expected=f"the package {package.partition('.')[0]}",
            found="none installed",
            remedy=install_hint(_EXTRAS.get(package.partition(".")[0], "corpora")),
        ) from error
