"""Messages of libraries while a model loads: none on the terminal, and the first line of those in errors."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers and the hub's client from writing to the terminal; gindex's errors say what matters of it."""
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with the next one after a colon; without a message its class."""
    first, *others = str(error).strip().splitlines() or [type(error).__name__]
    following = next((line.strip() for line in others if line.strip()), "") if first.rstrip().endswith(":") else ""
    return f"{first.rstrip()} {following}".rstrip()[:200]
