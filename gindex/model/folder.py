"""The folder of a model, read and checked before anything in it is loaded.

A folder that gindex cannot use is refused here at once, with the reason and the remedy; `docs/models.md` lists them.
Weights are later loaded from the files that were checked here, and from no others.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gindex.config import ModelConfig
from gindex.errors import ModelError
from gindex.model.library_messages import first_line
from gindex.model.location import ADAPTER_SETTINGS, PICKLED_WEIGHTS, SAFE_WEIGHTS, SHARD_LIST
from gindex.model.quantisation import is_quantised
from gindex.model.tasks.choice import chosen_kind
from gindex.model.tasks.kind import TaskKind

WIDE = ("F64", "F32", "F16", "BF16")
"""Number formats of safetensors that weights may be stored in; narrower ones come with scales beside them."""

_GGUF_REMEDY = (
    "write it as a plain model with transformers: from_pretrained(folder, gguf_file=..., "
    "quantization_config=GgufConfig(dequantize=True)), then save_pretrained()"
)


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder with all files of a model.

    Attributes:
        path: The folder.
        name: The name that the user gave.
        kind: What the model was trained to do.
        settings: Its config.json.
        pickled: Whether its weights are pickled.
        stored: The file of each weight by its name; empty where they are pickled.
        quantised: Whether its weights are quantised, which the base of an adapter alone may be.
        has_head: Whether it has a head of labels, where its task asks for one; else an adapter brings it.
    """

    path: Path
    name: str
    kind: type[TaskKind]
    settings: dict[str, Any]
    pickled: bool
    stored: Mapping[str, Path]
    quantised: bool = False
    has_head: bool = True

    @classmethod
    def read(cls, path: Path, config: ModelConfig, *, is_base: bool = False) -> "ModelFolder":
        """Read a folder and check it.

        Args:
            path: The folder.
            config: Its name, and what is allowed.
            is_base: Whether it is the base of an adapter.

        Raises:
            ModelError: It holds no model of the task whose weights can be taken as they are.
        """
        name = config.name
        settings = _read_settings(path, name)
        quantised = is_quantised(settings, name, is_base=is_base)
        kind = chosen_kind(config.task, settings)
        has_head = any(kind.fits(str(each), settings) for each in settings.get("architectures") or [])
        if has_head or not (is_base and kind.has_labels):
            kind.check_architecture(settings, name)
        _check_elsewhere(path, settings, name)
        files = _weight_files(path, SAFE_WEIGHTS, name)
        if not files:
            _check_pickled(path, config)
        stored = dict(_stored(files, name, narrow=quantised))
        return cls(
            path=path,
            name=name,
            kind=kind,
            settings=settings,
            pickled=not files,
            stored=stored,
            quantised=quantised,
            has_head=has_head,
        )

    @property
    def own_code(self) -> bool:
        """Whether its settings name Python code of its own for the model."""
        auto_map = self.settings.get("auto_map")
        return isinstance(auto_map, dict) and bool({"AutoConfig", self.kind.auto_model} & auto_map.keys())


def _read_settings(path: Path, name: str) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise ModelError(field=name, expected="a model folder with config.json", found=_instead(path))
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            field=file, expected="the settings of a model as JSON", found=first_line(error), remedy="restore the file"
        ) from error
    if not isinstance(settings, dict):
        raise ModelError(field=file, expected="an object", found=type(settings).__name__, remedy="restore the file")
    return settings


def _instead(path: Path) -> str:
    """Say what a folder without config.json holds, and what to do about it."""
    if files := sorted(path.glob("*.gguf")):
        return f"{files[0].name}; {_GGUF_REMEDY}"
    if (path / ADAPTER_SETTINGS).is_file():
        return "an adapter; merge it into its own base with peft's merge_and_unload()"
    below = sorted(file.parent.name for file in path.glob("*/config.json"))
    if below:
        return f"{len(below)} below it ({', '.join(below[:3])}); give one of these folders"
    if not any(path.iterdir()):
        return "an empty folder; check `model`"
    return "none; save the model there with save_pretrained()"


def _check_elsewhere(path: Path, settings: dict[str, Any], name: str) -> None:
    """Refuse weights under names that transformers prefers to the usual ones, which are looked at here."""
    named = settings.get("transformers_weights")
    elsewhere = [str(named)] if named not in (None, SAFE_WEIGHTS, f"{SAFE_WEIGHTS}{SHARD_LIST}") else []
    elsewhere += sorted(file.name for file in path.glob("shard-*-model-*.safetensors"))  # of distributed training
    if elsewhere:
        raise ModelError(
            field=name,
            expected=f"weights in {SAFE_WEIGHTS} or its shards",
            found=f"{elsewhere[0]} to be taken in their place",
            remedy="load the model with transformers and save it with save_pretrained()",
        )


def _weight_files(path: Path, weights: str, name: str) -> list[Path]:
    """Return the files of a checkpoint, one or its shards; none where the folder has no such checkpoint.

    Raises:
        ModelError: A shard is missing, or there are two checkpoints.
    """
    whole, listed = path / weights, path / f"{weights}{SHARD_LIST}"
    if whole.is_file() and listed.is_file():
        raise ModelError(
            field=name,
            expected="one set of weights",
            found=f"{whole.name} and {listed.name}",
            remedy="remove the one that is stale",
        )
    if whole.is_file() or not listed.is_file():
        return [whole] if whole.is_file() else []
    try:
        names = sorted(set(json.loads(listed.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            field=listed, expected="a list of shards", found=first_line(error), remedy="restore the file"
        ) from error
    missing = [shard for shard in names if not (path / shard).is_file()]
    if missing:
        raise ModelError(
            field=name,
            expected=f"{len(names)} shards of weights",
            found=(
                f"{len(names) - len(missing)}, without {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
            ),
            remedy="copy or fetch the model again",
        )
    return [path / shard for shard in names]


def _stored(files: list[Path], name: str, *, narrow: bool) -> Iterator[tuple[str, Path]]:
    """Yield the names of stored weights with their files, from the headers alone.

    Raises:
        ModelError: A file is damaged, or weights are in fewer than 16 bits, which `narrow` allows.
    """
    from safetensors import safe_open

    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                for key in weights.keys():  # noqa: SIM118 safe_open has no iterator
                    kind = weights.get_slice(key).get_dtype()
                    if key.endswith(".weight") and kind not in WIDE and not narrow:
                        raise ModelError(
                            field=name,
                            expected="weights of 16 or 32 bits",
                            found=f"{key} as {kind} in {file.name}",
                            remedy="give the model as it was before it was quantised",
                        )
                    yield key, file
        except ModelError:
            raise
        except Exception as error:  # safetensors' own error, and those of the file system
            raise ModelError(
                field=file,
                expected="whole weights",
                found=f"a damaged file ({first_line(error)})",
                remedy="copy or fetch it again",
            ) from error


def _check_pickled(path: Path, config: ModelConfig) -> None:
    files = _weight_files(path, PICKLED_WEIGHTS, config.name)
    if not files:
        weights = {
            file for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf") for file in path.glob(pattern)
        }
        others = sorted(file.name for file in weights)
        is_gguf = bool(weights) and all(file.suffix == ".gguf" for file in weights)
        raise ModelError(
            field=config.name,
            expected=f"weights in {SAFE_WEIGHTS}, or in shards listed by {SAFE_WEIGHTS}{SHARD_LIST}",
            found=", ".join(others[:3]) or "none",
            remedy=_GGUF_REMEDY if is_gguf else "save the model there with save_pretrained()",
        )
    if not config.allow_pickle:
        raise ModelError(
            field=config.name,
            expected="weights as safetensors",
            found=f"pickled ones ({files[0].name}), which could hold code",
            remedy="save them with save_pretrained(), or read tensors alone from them with `allow_pickle`",
        )
