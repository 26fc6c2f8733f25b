"""The folder of an adapter, read and checked before anything in it is loaded, and the place of its base.

An adapter is a few small weights beside the layers of a base model, in the form of the package peft: settings in
adapter_config.json, which name the base, and weights in adapter_model.safetensors. A folder may hold several, each in
a subfolder of its name, and one may lie beside a whole model.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gindex.config import AUTO, CAUSAL, ModelConfig
from gindex.errors import ModelError
from gindex.model.library_messages import first_line
from gindex.model.location import ADAPTER_SETTINGS, PICKLED_ADAPTER, SAFE_ADAPTER, find_model
from gindex.model.named_functions import is_function_name

HERE, ALONE = "default", "none"
"""Names of adapters: of the one in the folder itself, and of none at all."""

KINDS = ("LORA", "IA3")
"""Kinds of adapters of peft whose gradients gindex has: LoRA with its forms rsLoRA and DoRA, and (IA)^3."""

TASKS_OF_PEFT = {
    "CAUSAL_LM": CAUSAL,
    "SEQ_CLS": "classification",
    "TOKEN_CLS": "token-classification",
    "SEQ_2_SEQ_LM": "seq2seq",
}
"""Tasks of adapters by peft's names. One without a task has its base's."""

_CHECKPOINT = re.compile(r"checkpoint-\d+")
"""Subfolders that training leaves beside its result; each is taken by name alone."""


@dataclass(frozen=True, kw_only=True)
class AdapterFolder:
    """A folder with the settings and weights of an adapter.

    Attributes:
        path: The folder.
        name: The name that the user gave.
        settings: Its adapter_config.json.
        weights: The file of its weights.
        pickled: Whether they are pickled.
        beside: The folder of the whole model that it lies in, None where it lies in none.
    """

    path: Path
    name: str
    settings: Mapping[str, Any]
    weights: Path
    pickled: bool
    beside: Path | None

    @classmethod
    def find(cls, place: Path, config: ModelConfig) -> "AdapterFolder | None":
        """Find the adapter that is to be taken in a folder; None where that is a plain model, to be taken alone.

        Raises:
            ModelError: The folder does not say which adapter, has none of the name, or the adapter cannot be taken.
        """
        path = _choose(place, config)
        if path is None:
            return None
        settings = _read_settings(path / ADAPTER_SETTINGS, config.name)
        pickled = not (path / SAFE_ADAPTER).is_file()
        weights = path / (PICKLED_ADAPTER if pickled else SAFE_ADAPTER)
        if pickled:
            _check_pickled(weights, config)
        beside = path if (path / "config.json").is_file() else None
        return cls(path=path, name=config.name, settings=settings, weights=weights, pickled=pickled, beside=beside)

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer lies beside it, which then is the one that it was trained with."""
        return (self.path / "tokenizer.json").is_file()

    def base(self, config: ModelConfig) -> ModelConfig:
        """The base as a model of its own: where `base` says, else beside the adapter, else where its settings say.

        A relative path in the settings is looked for from the adapter's folder, and then from here. The task is the
        adapter's, where it has one.

        Raises:
            ModelError: The settings name none, or it is nowhere; says where it was looked for. Or the adapter is for
                another task than is asked for.
        """
        config = replace(config, task=self._task(config.task))
        if config.base is not None or self.beside is not None:
            return replace(config, name=config.base or str(self.beside))
        named = self.settings.get("base_model_name_or_path")
        if not isinstance(named, str) or not named:
            raise ModelError(
                field=self.path / ADAPTER_SETTINGS,
                expected="the base's folder or hub name as base_model_name_or_path",
                found=repr(named),
                remedy="name it with `base`",
            )
        inside = self.path / named
        return replace(config, name=str(inside) if inside.is_dir() else named)

    def _task(self, asked: str) -> str:
        own = TASKS_OF_PEFT.get(str(self.settings.get("task_type")), AUTO)
        if is_function_name(asked) or (AUTO not in (own, asked) and own != asked):
            raise ModelError(
                field=self.name,
                expected=f"an adapter for `task` {asked}",
                found=f"one for {self.settings.get('task_type') or 'the task of its base'}",
                remedy="leave `task` out, or merge it with peft's merge_and_unload(), and give what that returns",
            )
        return asked if own == AUTO else own

    def find_base(self, config: ModelConfig) -> Path:
        """The folder of the base, fetched from the hub where it has to be.

        Args:
            config: What `base` returned.

        Raises:
            ModelError: It is nowhere; says where it was looked for.
        """
        try:
            return find_model(config)
        except ModelError as error:
            inside = (self.path / config.name).absolute()
            beside = "" if config.base or inside == Path(config.name) else f", found no folder {inside}"
            raise ModelError(
                field=self.name,
                expected=f"the adapter's base {config.name!r} as {error.expected}{beside}",
                remedy="name its place with `base`",
            ) from error


def _choose(place: Path, config: ModelConfig) -> Path | None:
    """The folder of the adapter that is to be taken."""
    wanted, found = config.adapter, adapters_in(place)
    whole = (place / "config.json").is_file()
    if wanted is not None and wanted != ALONE:
        if wanted not in found:
            raise ModelError(
                field=config.name,
                expected=f"an adapter {wanted!r}",
                found=", ".join(found) or "no adapter",
                remedy="choose one of them with `adapter`" if found else "leave `adapter` out",
            )
        return found[wanted]
    if wanted == ALONE or (whole and HERE not in found):
        if found and not whole:
            raise ModelError(
                field=config.name,
                expected="a whole model beside the adapter",
                found="the adapter alone",
                remedy="give the folder of its base, or leave `adapter` out",
            )
        return None
    lasting = [name for name in found if not _CHECKPOINT.fullmatch(name)] or list(found)
    if whole or len(lasting) > 1:
        raise ModelError(
            field=config.name,
            expected="one adapter or one model",
            found=f"{'a model and ' if whole else ''}adapters ({', '.join(lasting)})",
            remedy=f"choose one with `adapter`{', or the model alone with `adapter` none' if whole else ''}",
        )
    return found[lasting[0]] if lasting else None


def adapters_in(place: Path) -> dict[str, Path]:
    """The folders of all adapters in a folder, by their names."""
    here = {HERE: place} if (place / ADAPTER_SETTINGS).is_file() else {}
    return here | {file.parent.name: file.parent for file in sorted(place.glob(f"*/{ADAPTER_SETTINGS}"))}


def _read_settings(file: Path, name: str) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind = str(settings["peft_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            field=file,
            expected="the settings of an adapter as JSON, with its peft_type",
            found=first_line(error),
            remedy="restore the file",
        ) from error
    if kind not in KINDS:
        raise ModelError(
            field=name,
            expected=f"an adapter of the kind {' or '.join(KINDS)}",
            found=kind,
            remedy="merge it into its base with peft's merge_and_unload(), save that with save_pretrained(), and "
            "give the folder",
        )
    task = settings.get("task_type")
    if task is not None and task not in TASKS_OF_PEFT:
        raise ModelError(
            field=name,
            expected=f"an adapter of one of the tasks {', '.join(TASKS_OF_PEFT)}",
            found=f"one for {task}",
            remedy="merge it into its base with peft's merge_and_unload(), and give what that returns with a `task` of "
            "your own",
        )
    return settings


def _check_pickled(file: Path, config: ModelConfig) -> None:
    if not file.is_file():
        raise ModelError(
            field=config.name,
            expected=f"the adapter's weights in {SAFE_ADAPTER}",
            found="none",
            remedy="save the adapter there with peft's save_pretrained()",
        )
    if not config.allow_pickle:
        raise ModelError(
            field=config.name,
            expected="an adapter's weights as safetensors",
            found=f"pickled ones ({file.name}), which could hold code",
            remedy="save them with peft's save_pretrained(), or read tensors alone from them with `allow_pickle`",
        )
