"""The task of a model: the one that is asked for, or the one that its config.json speaks of."""

from collections.abc import Mapping
from typing import Any

from gindex.config import AUTO, CAUSAL, TASKS
from gindex.model.named_functions import is_function_name
from gindex.model.tasks.function_kind import function_kind
from gindex.model.tasks.kind import TaskKind


def chosen_kind(task: str, settings: Mapping[str, Any]) -> type[TaskKind]:
    """The kind of task.

    Args:
        task: Its name; that of a function of the user's own, which is imported; or `auto`: then the first that an
            architecture of the settings fits, else `causal`.
        settings: The model's config.json.

    Raises:
        ConfigError: There is no such task.
    """
    if is_function_name(task):
        return function_kind(task, settings)
    named = [str(each) for each in settings.get("architectures") or []]
    names = [name for name in TASKS.names() if name != CAUSAL] if task == AUTO else [task, *TASKS.get(task).variants]
    kinds: list[type[TaskKind]] = [TASKS.get(name) for name in names]
    found = (kind for kind in kinds if any(kind.fits(each, settings) for each in named))
    return next(found, TASKS.get(CAUSAL if task == AUTO else task))
