"""Loading of a model and its tokenizer, with checks that the model is whole and does what its task needs.

Checks that need no weights come first, so that a folder that cannot be used is refused at once.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gindex.config import CorpusConfig, ModelConfig
from gindex.corpus.encoding import Encoder
from gindex.corpus.objectives import WeightedTokens
from gindex.errors import ModelError, QueryError, TokenizerError
from gindex.model.adapter_folder import AdapterFolder
from gindex.model.adapter_head import settle_labels, settle_padding, whole_weights, without_head
from gindex.model.adapters import apply_adapter, import_peft, read_weights
from gindex.model.attention import use_fast_attention
from gindex.model.context_length import most_tokens
from gindex.model.custom_models import rebuild
from gindex.model.device_choice import fast_bfloat16, pick_device
from gindex.model.fingerprints import (
    fingerprint_adapter,
    fingerprint_buffers,
    fingerprint_code,
    fingerprint_files,
    fingerprint_model,
    is_own,
)
from gindex.model.folder import ModelFolder
from gindex.model.isolation import loading, share_turns
from gindex.model.library_messages import first_line, quiet
from gindex.model.location import ADAPTER_SETTINGS, find_model
from gindex.model.quantisation import check_backward, keep_differentiable
from gindex.model.tasks.kind import TaskKind
from gindex.model.weight_check import check_padding, check_whole, ignored_missing
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.query import Query

PRIMITIVES = 128
"""Compiled products that oneDNN caches, one for each shape. With AMX one takes .6 MB; its own default is 1,024."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model on its device with its tokenizer and fingerprints.

    Attributes:
        model: The model, frozen.
        tokenizer: Its tokenizer; of a model that reads no tokens, what prepares documents, or None.
        kind: What it was trained to do.
        max_tokens: Most tokens that it takes.
        fingerprint: Fingerprint of its weights, without those of an adapter.
        tokenizer_fingerprint: Fingerprint of its tokenizer.
        buffers: Fingerprint of the buffers in its checkpoint; "" without any.
        code: Fingerprint of its code; `transformers` where it has none of its own.
        adapter: Fingerprint of the adapter; "" without one.
        trained: Names of the weights that are the adapter's; None without one.
        base: Folder or hub name of the adapter's base; None without one.
    """

    model: nn.Module
    tokenizer: Any
    kind: TaskKind
    max_tokens: int
    fingerprint: str
    tokenizer_fingerprint: str
    buffers: str
    code: str
    adapter: str = ""
    trained: frozenset[str] | None = None
    base: str | None = None

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has."""
        return int(self.model.get_input_embeddings().num_embeddings)  # type: ignore[operator]

    @property
    def query_forms(self) -> Sequence[str]:
        """Forms of queries that the task takes."""
        return self.kind.query_forms

    def stored(self, document_id: str) -> Sequence[WeightedTokens]:
        """Refuse a document as a query, where there is no index that it could be in.

        Raises:
            QueryError: Always.
        """
        raise QueryError(field="query", expected="a query of its own", found=f"the document {document_id!r}")

    def query_texts(self, query: Query, form: str, limit: TokenLimit) -> Sequence[CountedText]:
        """Texts of a query; see `QueryReader.query_texts`."""
        return self.kind.query_texts(query, form, self, limit)

    def encoder(self, config: CorpusConfig, seed: int) -> Encoder:
        """What makes objectives of documents, with parts as long as the settings say or the model takes."""
        return self.kind.encoder(config, config.max_tokens or min(self.kind.usual_tokens, self.max_tokens), seed)

    @property
    def identity(self) -> dict[str, str]:
        """The fingerprints of the model by name, as an index records them: that of an adapter where there is one."""
        own = {"adapter": self.adapter} if self.adapter else {}
        return {
            "model": self.fingerprint,
            "tokenizer": self.tokenizer_fingerprint,
            "buffers": self.buffers,
            "code": self.code,
        } | own

    @property
    def run_identity(self) -> dict[str, str]:
        """The fingerprints, the number format of its passes, and what runs them."""
        return self.identity | {
            "dtype": str(next(self.model.parameters()).dtype).removeprefix("torch."),
            "runtime": self.runtime,
        }

    @property
    def runtime(self) -> str:
        """The versions of what runs its passes, and the kind of device."""
        versions = ", ".join(f"{name} {version(name)}" for name in ("transformers", "torch"))
        return f"{versions}, {next(self.model.parameters()).device.type}"


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The folder and settings of a model, read before it is loaded.

    Attributes:
        folder: Its folder, checked; of an adapter, the base's.
        settings: Its configuration, of transformers or of its own code.
        max_tokens: Most tokens that it takes.
        adapter: The adapter, None where there is none.
    """

    folder: ModelFolder
    settings: Any
    max_tokens: int
    adapter: AdapterFolder | None = None

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer: the adapter's own, where it has one."""
        adapter = self.adapter
        return adapter.path if adapter is not None and adapter.has_tokenizer else self.folder.path


def read_model(config: ModelConfig) -> ModelSettings:
    """Find a model and read its folder and settings, without its weights.

    Raises:
        ModelError: There is no such model, or it cannot be used.
    """
    from transformers import AutoConfig

    with quiet():
        adapter, folder = _find_folders(config)
        try:
            settings = AutoConfig.from_pretrained(str(folder.path), trust_remote_code=config.trust_remote_code)
            known = folder.kind.knows(settings)
        except Exception as error:
            if folder.own_code and not config.trust_remote_code:
                raise _untrusted(folder.name) from error
            raise ModelError(
                field=folder.path / "config.json",
                expected=f"the settings of a model that transformers knows ({first_line(error)})",
                remedy="a newer transformers may know it",
            ) from error
        if not known and not (folder.own_code and config.trust_remote_code):
            if folder.own_code:
                raise _untrusted(folder.name)
            raise ModelError(
                field=folder.name,
                expected=f"{folder.kind.described} of transformers",
                found=(
                    f"{', '.join(folder.settings.get('architectures') or []) or settings.model_type}, which has none"
                ),
                remedy=f"use a model of a class that {folder.kind.auto_model} loads",
            )
        most = most_tokens(settings, _tokenizer_settings(folder.path))
        return ModelSettings(folder=folder, settings=settings, max_tokens=most, adapter=adapter)


def _tokenizer_settings(folder: Path) -> Mapping[str, Any]:
    """The tokenizer_config.json of a folder; nothing where none can be read: `load_tokenizer` says what is wrong."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _find_folders(config: ModelConfig) -> tuple[AdapterFolder | None, ModelFolder]:
    """The folder of the adapter, where there is one, and that of the model or base."""
    place = find_model(config)
    adapter = AdapterFolder.find(place, config)
    if adapter is not None:
        import_peft(config.name)  # before anything large is read
        base = adapter.base(config)
        folder = ModelFolder.read(adapter.find_base(base), base, is_base=True)
        return adapter, folder
    if config.base is not None:
        raise ModelError(
            field="base", expected="an adapter", found=f"a whole model in {config.name}", remedy="leave `base` out"
        )
    return None, ModelFolder.read(place, config)


def load_model(config: ModelConfig, known: Mapping[str, str] | None = None) -> LoadedModel:
    """Load a model to its device with its tokenizer, frozen and in evaluation mode.

    On a CPU, oneDNN is told to keep fewer compiled products, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY says how many.

    Args:
        config: Which model.
        known: The `run_identity` of a model that was found to do what its task needs: the same one is not tried again.

    Raises:
        ModelError: There is no such model, it is not whole, not causal, or unreadable, or the device is not there.
        NonFiniteError: Its logits are NaN or infinite.
        TokenizerError: It has no tokenizer, or one without character offsets.
    """
    device = pick_device(config.device)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRIMITIVES))  # read when it is first used
    read = read_model(config)
    folder = read.folder
    with loading(), quiet():
        tokenizer = _load_reader(read, config)
        dtype = _pick_dtype(config, read.settings, device)
        model = _load_weights(read, config, dtype, device, _settle_head(read, config, tokenizer))
        kind = folder.kind(config.name, model, tokenizer)
        kind.equip(folder.path)
        fingerprint = fingerprint_files(folder.stored) if folder.quantised else fingerprint_model(model)
        loaded = LoadedModel(
            model=model,
            tokenizer=tokenizer,
            kind=kind,
            max_tokens=read.max_tokens,
            fingerprint=fingerprint,
            tokenizer_fingerprint=(
                kind.tokenizer_fingerprint() if kind.reads_tokens else kind.reader_fingerprint(tokenizer)
            ),
            buffers="" if folder.quantised else fingerprint_buffers(model),
            code=fingerprint_code(model, folder.path),
        )
        if read.adapter is not None:
            loaded = _adapted(loaded, read.adapter, folder, dtype)
        if kind.reads_tokens:
            _check_vocabulary(config.name, model, tokenizer)
        if loaded.run_identity != known:
            kind.check(loaded.max_tokens)
    share_turns(model, ours=True)
    if kind.reads_tokens:
        # As the first call would; another thread's call at that moment would find the tokenizer in use.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    return loaded


def _load_reader(read: ModelSettings, config: ModelConfig) -> Any:
    """The tokenizer, or what prepares documents of another kind."""
    kind = read.folder.kind
    if not kind.reads_tokens:
        return kind.load_reader(read.folder.path)
    return load_tokenizer(read.tokenizer_folder, trust_remote_code=config.trust_remote_code)


def _adapted(loaded: LoadedModel, adapter: AdapterFolder, folder: ModelFolder, dtype: torch.dtype) -> LoadedModel:
    """A base with its adapter; the weights of both are frozen."""
    keep_differentiable(loaded.model)
    applied = apply_adapter(loaded.model, adapter, dtype)
    loaded.model.eval()
    check_backward(folder.name, loaded.model)
    return replace(
        loaded,
        adapter=fingerprint_adapter(loaded.model, applied.trained, applied.scaling),
        trained=applied.trained,
        base=folder.name,
    )


def load_tokenizer(folder: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer in a model's folder.

    Args:
        folder: The folder.
        trust_remote_code: Run code that the tokenizer brings with it.

    Raises:
        TokenizerError: There is none, or one without character offsets, or one that needs code of its own.
    """
    from transformers import AutoTokenizer

    name = str(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise TokenizerError(
                field=name,
                expected="a tokenizer of transformers' own classes",
                found="one that runs code of its own (*.py beside it)",
                remedy="read that code, and give `trust_remote_code` to run it",
            ) from error
        raise TokenizerError(
            field=name,
            expected="a tokenizer beside the model",
            found=f"none that loads ({first_line(error)})",
            remedy="save it there with tokenizer.save_pretrained()",
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise TokenizerError(field=name, expected="a fast tokenizer (tokenizer.json)", found=type(tokenizer).__name__)
    return tokenizer


def _untrusted(name: str) -> ModelError:
    return ModelError(
        field=name,
        expected="a model of transformers' own classes",
        found="one that runs code of its own (*.py beside it)",
        remedy="read that code, and give `trust_remote_code` to run it",
    )


def _settle_head(read: ModelSettings, config: ModelConfig, tokenizer: Any) -> Mapping[str, Tensor] | None:
    """The weights that an adapter of a classifier brings whole, for which its base is settled; None without one."""
    kind = read.folder.kind
    if read.adapter is None or not kind.has_labels:
        return None
    whole = whole_weights(read_weights(read.adapter))
    settle_labels(read.settings, read.folder, whole, trusted=config.trust_remote_code)
    if kind.reads_tokens:
        settle_padding(read.settings, tokenizer)
    return whole


def _load_weights(
    read: ModelSettings,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    whole: Mapping[str, Tensor] | None,
) -> nn.Module:
    import transformers

    name, folder, kind = read.folder.name, read.folder, read.folder.kind
    try:
        loaded: Any = getattr(transformers, kind.auto_model).from_pretrained(
            str(folder.path),
            config=read.settings,
            dtype=dtype,
            trust_remote_code=config.trust_remote_code,
            use_safetensors=not folder.pickled,
            weights_only=True,
            ignore_mismatched_sizes=True,  # they are named below
            output_loading_info=True,
            device_map={"": device} if folder.quantised else None,  # such a model cannot be moved afterwards
            adapter_kwargs={"subfolder": ADAPTER_SETTINGS},  # no folder: transformers must not apply adapters itself
        )
        model: nn.Module = loaded[0]
        report: Mapping[str, Any] = loaded[1] if whole is None else without_head(loaded[1], model, folder, whole)
    except Exception as error:
        if folder.pickled:  # torch's own words advise to run the code
            raise ModelError(
                field=name,
                expected=f"pickled weights of tensors alone, could not read them ({type(error).__name__})",
                remedy="save the model as safetensors, where it comes from",
            ) from error
        raise ModelError(
            field=name,
            expected=f"{kind.described} of transformers, could not load it ({first_line(error)})",
            remedy="give a folder with config.json and weights, or a hub name",
        ) from error
    hidden = set() if folder.pickled else ignored_missing(model, folder.stored)
    unused = {key for key in report["unexpected_keys"] if kind.spare and re.search(kind.spare, key)}
    check_whole(
        name,
        model,
        {
            **report,
            "missing_keys": {*report["missing_keys"], *hidden},
            "unexpected_keys": set(report["unexpected_keys"]) - unused,
        },
        is_base=whole is not None,
    )
    check_padding(name, model, folder.stored)
    if is_own(model):
        model = rebuild(name, model, dtype)
    try:
        model = (model if folder.quantised else model.to(device)).requires_grad_(False).eval()
        use_fast_attention(model)
    except Exception as error:
        raise ModelError(
            field=name,
            expected=f"room for the model on {device}, could not move it there ({first_line(error)})",
            remedy="use another `device` or a smaller number format with `dtype`",
        ) from error
    return model


def _pick_dtype(config: ModelConfig, settings: Any, device: torch.device) -> torch.dtype:
    if config.dtype != "auto":
        return getattr(torch, config.dtype)  # type: ignore[no-any-return]
    stored = getattr(settings, "dtype", None)
    sixteen_bit = stored in (torch.bfloat16, torch.float16, "bfloat16", "float16")
    return torch.bfloat16 if sixteen_bit and fast_bfloat16(device) else torch.float32


def _check_vocabulary(name: str, model: nn.Module, tokenizer: Any) -> None:
    rows = len(model.get_input_embeddings().weight)  # type: ignore[operator]
    if len(tokenizer) > rows:
        raise TokenizerError(
            field=name,
            expected=f"a tokenizer of at most {rows} tokens",
            found=len(tokenizer),
            remedy="the tokenizer belongs to another model",
        )
