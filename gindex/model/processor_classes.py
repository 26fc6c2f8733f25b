"""Classes of the processors of vision-language models, as the files of their folders name them."""

import json
from pathlib import Path
from typing import Any

from gindex.errors import ModelError

SETTINGS = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files that may name the class of a processor, in the order in which transformers looks into them."""

_VIDEOS = "video_processor"


def processor_class(folder: Path) -> Any:
    """The class of the processor that the files of a folder name.

    Raises:
        ModelError: They name none, or none of transformers.
    """
    import transformers

    named = next(filter(None, (_setting(folder / file, "processor_class") for file in SETTINGS)), None)
    if named is None:
        from transformers.models.auto import processing_auto

        names: Any = processing_auto.PROCESSOR_MAPPING_NAMES  # type: ignore[attr-defined]
        known = names.get(str(_setting(folder / "config.json", "model_type")))
        named = known[0] if isinstance(known, tuple) else known
    if named is None:
        raise ModelError(
            field=folder,
            expected="a processor beside the model, which prepares pictures (processor_config.json)",
            found="none",
            remedy="save it there with its save_pretrained()",
        )
    kind = getattr(transformers, str(named), None)
    lacking = ", ".join(vars(kind).get("_backends", ())) if isinstance(kind, type) else ""
    if lacking or not isinstance(kind, type) or not issubclass(kind, transformers.ProcessorMixin):
        raise ModelError(
            field=folder,
            expected="a processor of transformers that can be used",
            found=str(named),
            remedy=f"install what it needs: {lacking}" if lacking else "a newer transformers may have it",
        )
    return kind


def without_videos(kind: Any) -> Any:
    """A class of processors that needs no part for videos."""
    parts = [name for name in kind.get_attributes() if name != _VIDEOS]
    if len(parts) == len(kind.get_attributes()):
        return kind

    def arguments(cls: Any, *given: Any, **settings: Any) -> list[Any]:
        found: list[Any] = kind._get_arguments_from_pretrained.__func__(cls, *given, **settings)
        found.insert(kind.get_attributes().index(_VIDEOS), None)
        return found

    made = {"get_attributes": classmethod(lambda _cls: parts), "_get_arguments_from_pretrained": classmethod(arguments)}
    return type(kind.__name__, (kind,), made)


def _setting(file: Path, name: str) -> Any:
    """A field of a file of settings; None where there is none."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings.get(name) if isinstance(settings, dict) else None
