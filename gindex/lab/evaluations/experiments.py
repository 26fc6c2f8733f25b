"""Training functions by the names that users give: each is loaded as an `Experiment`."""

import inspect
from pathlib import Path
from typing import Any

from gindex.errors import ConfigError
from gindex.files.atomic import checksum
from gindex.lab.evaluations.fine_tuning import FineTuning
from gindex.lab.evaluations.training import Experiment
from gindex.model.named_functions import load_function

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
    function = load_function(name, where, attribute)
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


def _source(function: Any) -> str:
    written = function if inspect.isroutine(function) else type(function)
    file = inspect.getsourcefile(written)
    return checksum(Path(file)) if file else ""
