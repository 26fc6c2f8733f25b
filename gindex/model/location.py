"""The location of a model by its name: a folder, or a snapshot of the hub's model in the local cache.

A name is a folder first. Without such a folder the hub is asked for `owner/name`, and for no other name; the cache may
know one that was fetched before. Everything that is read of the model afterwards lies in the folder found here.
"""

import json
import re
from pathlib import Path

from gindex.config import ModelConfig
from gindex.errors import ModelError
from gindex.model.library_messages import first_line

SAFE_WEIGHTS, PICKLED_WEIGHTS = "model.safetensors", "pytorch_model.bin"
SAFE_ADAPTER, PICKLED_ADAPTER = "adapter_model.safetensors", "adapter_model.bin"
ADAPTER_SETTINGS = "adapter_config.json"
SHARD_LIST = ".index.json"
"""Ending of the file that lists the shards of weights, after the name of the weights."""

_KINDS = (("config.json", SAFE_WEIGHTS, PICKLED_WEIGHTS), (ADAPTER_SETTINGS, SAFE_ADAPTER, PICKLED_ADAPTER))
"""Settings of models and of adapters with the files of their weights; a folder may hold both."""

_SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
"""Files of a snapshot beside its weights: settings and tokenizers."""

_OWNED = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BARE = re.compile(r"[A-Za-z0-9][\w.-]*")


def find_model(config: ModelConfig) -> Path:
    """Return the folder of a model, fetched from the hub where it has to be.

    Raises:
        ModelError: There is none; says where it was looked for.
    """
    name = config.name
    if not name:
        raise ModelError(field="model", expected="a model folder or hub name", found="nothing")
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(
            field=name, expected="a model folder", found="a file", remedy="give the folder that holds config.json"
        )
    if _OWNED.fullmatch(name):
        return _fetch(config)
    cached = _cached(name) if _BARE.fullmatch(name) else None
    if cached is None:
        raise ModelError(
            field=name,
            expected=f"a model folder or hub name, {looked_for(name)}",
            remedy="check `model` (a hub name is owner/name)",
        )
    return cached


def looked_for(name: str) -> str:
    """Return the places where a model was looked for in vain, in words, without looking again.

    Example:
        >>> looked_for("model")
        'found no folder /home/me/model and nothing of the name in the local cache of the hub, which was not asked'
    """
    where = f"found no folder {Path(name).absolute()}"
    if _OWNED.fullmatch(name):
        return f"{where} and no such model of the hub"
    if _BARE.fullmatch(name):
        return f"{where} and nothing of the name in the local cache of the hub, which was not asked"
    return where


def _cached(name: str) -> Path | None:
    """Return the snapshot of a hub model that was fetched before."""
    from huggingface_hub import try_to_load_from_cache

    known = (try_to_load_from_cache(name, file) for file in ("config.json", ADAPTER_SETTINGS))
    return next((Path(file).parent for file in known if isinstance(file, str)), None)


def _fetch(config: ModelConfig) -> Path:
    """Fetch the missing files of a hub model; without a reachable hub return those that were fetched before."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    name, where = config.name, f"found no folder {Path(config.name).absolute()}"
    try:
        folder = _snapshot(name, _SMALL + (["*.py"] if config.trust_remote_code else []))
        for settings, safe, pickled in _KINDS:
            there = (folder / settings).is_file()
            if there and not _snapshot_weights(name, folder, safe) and config.allow_pickle:
                _snapshot_weights(name, folder, pickled)
    except GatedRepoError as error:
        raise ModelError(
            field=name,
            expected=(
                f"a model that may be read, {where}, and the hub keeps this one for those who accepted its terms"
            ),
            remedy="accept them there and log in with `hf auth login`",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            field=name,
            expected=f"a model folder or hub name, {where} and no such model on the hub (or a private one)",
            remedy="check `model`, or log in with `hf auth login`",
        ) from error
    except Exception as error:  # network, hub and cache errors alike
        cached = _cached(name)
        if cached is None:
            raise ModelError(
                field=name,
                expected=f"a model folder or hub name, {where} and the hub could not be asked ({first_line(error)})",
                remedy="check `model` and the network",
            ) from error
        return cached
    return folder


def _snapshot(name: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))


def _snapshot_weights(name: str, folder: Path, weights: str) -> bool:
    """Fetch one file of weights, or the shards of its list; False where the hub has neither."""
    listed = folder / f"{weights}{SHARD_LIST}"
    if listed.is_file():
        shards = json.loads(listed.read_text(encoding="utf-8")).get("weight_map", {}).values()
        _snapshot(name, sorted(set(shards)))
        return True
    _snapshot(name, [weights])
    return (folder / weights).is_file()
