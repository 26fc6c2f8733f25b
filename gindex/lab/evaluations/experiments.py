"""Training functions by the names that users give: each is loaded as an `Experiment`."""

import importlib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from gindex.errors import ConfigError
from gindex.files.atomic import checksum
from gindex.lab.evaluations.fine_tuning import FineTuning
from gindex.lab.evaluations.training import Experiment

BUILT_IN = {
    "digits": "gindex.lab.evaluations.digits:Digits",
    "tabular": "gindex.lab.evaluations.tabular:Tabular",
}
"""Training functions that come with gindex."""

FINE_TUNING = "fine-tuning:"
"""What stands before the folder of a language model to fine-tune; see `gindex.lab.evaluations.fine_tuning`."""


def load_experiment(name: str, documents: int | None = None) -> Experiment:
    """Load what a user named.

    Args:
        name: One of `BUILT_IN`, `fine-tuning:FOLDER`, `package.module:function` or `path/to/file.py:function`. A class
            is called without arguments, and what it makes is the function.
        documents: N, where the function has no attribute `documents` that says so.

    Raises:
        ConfigError: There is no such function, it cannot be imported, or nothing says how many documents there are.
        CorpusError: Documents of a folder are missing, of no form, or malformed.
        QueryError: Its queries are.
    """
    if name.startswith(FINE_TUNING):
        tuning = FineTuning(name.removeprefix(FINE_TUNING))
        return Experiment(name=name, source=tuning.source, function=tuning, documents=tuning.documents)
    where, _, attribute = BUILT_IN.get(name, name).rpartition(":")
    if not where or not attribute:
        raise ConfigError(
            field=repr(name),
            expected="a training function as package.module:function or path/to/file.py:function, or one of "
            f"{', '.join(BUILT_IN)}, {FINE_TUNING}FOLDER",
            found="no colon",
        )
    module = _import(name, where)
    if not hasattr(module, attribute):
        raise ConfigError(
            field=name, expected=f"{attribute!r} in {where}", found="none", remedy="check the name behind the colon"
        )
    function = getattr(module, attribute)
    if inspect.isclass(function):
        function = function()
    if not callable(function):
        raise ConfigError(field=name, expected="a function of a subset and a seed", found=type(function).__name__)
    count = getattr(function, "documents", documents)
    if documents is not None and count != documents:
        raise ConfigError(
            field="documents", expected=f"{count}, which {name} says it has", found=documents, remedy="leave it out"
        )
    if not isinstance(count, int) or count < 2:
        raise ConfigError(
            field=name,
            expected="to know of at least two documents to draw subsets from",
            found=count,
            remedy="give `documents`, or the function an attribute of that name",
        )
    return Experiment(name=name, source=_source(function), function=function, documents=count)


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


def _source(function: Any) -> str:
    written = function if inspect.isroutine(function) else type(function)
    file = inspect.getsourcefile(written)
    return checksum(Path(file)) if file else ""
