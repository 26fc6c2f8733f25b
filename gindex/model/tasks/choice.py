"""The task of a model: the one that is asked for, or the one that its config.json speaks of."""

from collections.abc import Mapping
from typing import Any

from gindex.config import AUTO, CAUSAL, TASKS
from gindex.model.tasks.kind import TaskKind


def chosen_kind(task: str, settings: Mapping[str, Any]) -> type[TaskKind]:
    """The kind of task.

    Args:
        task: Its name, or `auto`: then the first that an architecture of the settings fits, else `causal`.
        settings: The model's config.json.

    Raises:
        ConfigError: There is no such task.
    """
    if task != AUTO:
        return TASKS.get(task)  # type: ignore[no-any-return]
    named = [str(each) for each in settings.get("architectures") or []]
    kinds: list[type[TaskKind]] = [TASKS.get(name) for name in TASKS.names() if name != CAUSAL]
    found = (kind for kind in kinds if any(kind.fits(each, settings) for each in named))
    return next(found, TASKS.get(CAUSAL))
