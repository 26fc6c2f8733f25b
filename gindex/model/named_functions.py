"""Functions of users by the names that they give: `package.module:function` or `path/to/file.py:function`.

A name is imported, which runs the code of its module: it must come from the user, never from an index.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from gindex.errors import ConfigError


def is_function_name(name: str) -> bool:
    """Whether a name is one of a function of a user's own."""
    return ":" in name


def load_function(name: str, where: str, attribute: str) -> Any:
    """Import what a user named.

    Args:
        name: The whole name, for messages.
        where: A module that can be imported from the current folder or elsewhere, or the path of a Python file.
        attribute: What it is called there.

    Raises:
        ConfigError: There is no such module or attribute, or the module fails.
    """
    module = _import(name, where)
    if not hasattr(module, attribute):
        raise ConfigError(
            field=name, expected=f"{attribute!r} in {where}", found="none", remedy="check the name behind the colon"
        )
    return getattr(module, attribute)


def _import(name: str, where: str) -> Any:
    try:
        if where.endswith(".py"):
            return _import_file(Path(where))
        if os.getcwd() not in sys.path:  # what `python -m` does too
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(where)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            field=name, expected=f"to import {where}", found=f"{type(error).__name__}: {error}"
        ) from error


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(field=path, expected="a Python file", found="none")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(field=path, expected="a Python file that can be imported", found="none")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
