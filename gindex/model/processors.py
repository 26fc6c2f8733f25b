"""The processor of a vision-language model: what makes its tokens and pixels of a text with pictures.

It is transformers' own, in its form for Pillow, without the part that reads videos: so torchvision is not needed.

Axes: T tokens.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gindex.corpus.contents import OBJECT
from gindex.corpus.packages import require
from gindex.corpus.picture_texts import ExpandedText, PictureText
from gindex.corpus.picture_tokenizer import PictureTokenizer
from gindex.corpus.pictures import decoded
from gindex.errors import CorpusError, GindexError, ModelError
from gindex.model.library_messages import first_line
from gindex.model.processor_classes import processor_class, without_videos

_NO_INPUTS = ("labels", "offset_mapping", "text_replacement_offsets")


class PictureProcessor:
    """A processor of transformers: a `PictureTexts`."""

    def __init__(self, processor: Any, tokenizer: Any) -> None:
        """Wrap a processor, and the tokenizer beside it."""
        self._processor = processor
        self.tokenizer = PictureTokenizer(
            tokenizer, getattr(processor, "chat_template", None) or tokenizer.chat_template, self.placeholder
        )
        processor.tokenizer.backend_tokenizer.no_truncation()
        processor.tokenizer.backend_tokenizer.no_padding()

    @classmethod
    def load(cls, folder: Path, tokenizer: Any) -> "PictureProcessor":
        """Load the processor of a model's folder.

        Raises:
            MissingDependencyError: Pillow is not installed.
            ModelError: There is none, it does not load, or does not say where pictures stand in a text.
        """
        require("PIL", str(folder))
        from transformers import AutoImageProcessor

        kind = processor_class(folder)
        remedy = "save it there with its save_pretrained()"
        try:
            processor: Any = without_videos(kind).from_pretrained(str(folder))
            load: Any = AutoImageProcessor.from_pretrained
            processor.image_processor = load(str(folder), backend="pil")
        except Exception as error:
            if isinstance(error, ImportError) or "torchvision" in str(error).lower():
                remedy = "install the package that it needs"
            raise ModelError(
                field=folder,
                expected="a processor beside the model, which prepares pictures",
                found=f"that {kind.__name__} does not load ({first_line(error)})",
                remedy=remedy,
            ) from error
        if not isinstance(getattr(processor, "image_token", None), str):
            raise ModelError(
                field=folder,
                expected="a processor that puts tokens in the place of a picture's",
                found=kind.__name__,
                remedy="see docs/tasks.md",
            )
        return cls(processor, tokenizer)

    @property
    def placeholder(self) -> str:
        """What stands for a picture in what its chat template writes."""
        return str(self._processor.image_token)

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of its settings and chat template."""
        images = json.loads(self._processor.image_processor.to_json_string())
        own = {name: value for name, value in self._processor.to_dict().items() if _is_plain(value)}
        settings = {"images": images, "own": own, "template": self.tokenizer.chat_template}
        return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()

    def check(self) -> None:
        """Check nothing: the processor is loaded."""

    def expand(self, text: PictureText) -> ExpandedText:
        """Tokens of a text with its pictures.

        Raises:
            CorpusError: The processor does not take them.
        """
        return _expanded(text, self._prepared(text, offsets=True))

    def inputs(self, text: PictureText, ids: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        """The keyword arguments of the model for the first tokens of a text with its pictures.

        Args:
            text: The text.
            ids: Its tokens as they were when it was read [1, T], or the first of them.
            dtype: Number format of floating tensors.

        Raises:
            ModelError: The processor makes other tokens of it now, or something else than tensors.
        """
        found = {name: x for name, x in self._prepared(text, offsets=False).items() if name not in _NO_INPUTS}
        other = next((name for name, x in found.items() if not isinstance(x, Tensor)), None)
        if other is not None:
            raise ModelError(
                field=type(self._processor).__name__,
                expected="a processor that makes tensors of a text with pictures",
                found=f"{type(found[other]).__name__} as {other}",
                remedy="leave the pictures out",
            )
        total, kept = found["input_ids"].shape[1], ids.shape[1]
        if not torch.equal(found["input_ids"][:, :kept], ids.cpu()):
            raise ModelError(
                field=type(self._processor).__name__,
                expected="the tokens of a text with pictures that it made when the text was read",
                found="other ones",
                remedy="use the version of transformers that the index was built with",
            )
        cut = {name: x[:, :kept] if x.dim() > 1 and _is_by_token(name, x, total) else x for name, x in found.items()}
        return {name: x.to(ids.device, dtype if x.is_floating_point() else x.dtype) for name, x in cut.items()}

    def _prepared(self, text: PictureText, *, offsets: bool) -> Mapping[str, Any]:
        written = text.text.replace(OBJECT, self.placeholder)
        pictures = [decoded(picture, "picture") for picture in text.pictures]
        begin = getattr(self._processor.tokenizer, "bos_token", None)
        asked: dict[str, Any] = {"return_offsets_mapping": True, "return_text_replacement_offsets": True}
        try:
            found: Mapping[str, Any] = self._processor(
                text=[written],
                images=pictures or None,
                return_tensors="pt",
                add_special_tokens=begin is None or not written.startswith(begin),  # as its own chat templates do
                **(asked if offsets else {}),
            )
        except Exception as error:
            raise CorpusError(
                field="conversation",
                expected=f"a text with pictures that {type(self._processor).__name__} takes",
                found=f"one that it refuses ({type(error).__name__}: {first_line(error)})",
                remedy="correct or remove the record",
            ) from error
        return found


class MissingProcessor:
    """What stands for a processor that cannot be used: a `PictureTexts` that reads text and refuses pictures."""

    placeholder = OBJECT
    fingerprint = ""

    def __init__(self, tokenizer: Any, reason: GindexError) -> None:
        """Take the tokenizer, and why there is no processor."""
        self.tokenizer, self._reason = PictureTokenizer(tokenizer, tokenizer.chat_template, OBJECT), reason

    def expand(self, text: PictureText) -> ExpandedText:
        """Refuse a text with pictures.

        Raises:
            CorpusError: Always.
        """
        raise self._refusal() from self._reason

    def check(self) -> None:
        """Refuse pictures.

        Raises:
            CorpusError: Always.
        """
        raise self._refusal() from self._reason

    def _refusal(self) -> CorpusError:
        parts = self._reason.parts()
        return CorpusError(
            field="pictures",
            expected=f"{parts.get('expected', 'a processor')}, for {parts.get('field', 'the model')}",
            found=parts.get("found", "none"),
            remedy=parts.get("remedy", "leave the pictures out"),
        )


def _expanded(text: PictureText, found: Mapping[str, Any]) -> ExpandedText:
    """The tokens that a processor has made of a text with pictures.

    Args:
        text: The text.
        found: What the processor gives of one text, with the characters of each token in the text whose placeholders it
            has replaced, and which characters those were.

    Raises:
        CorpusError: It does not say where pictures stand.
    """
    spans = [each["new_span"] for each in (found.get("text_replacement_offsets") or [[]])[0]]
    if len(spans) != len(text.pictures) or "offset_mapping" not in found:
        raise CorpusError(
            field="processor",
            expected="that it says where the tokens of each picture stand in a text",
            found=f"{len(spans)} places of {len(text.pictures)} pictures",
            remedy="a newer transformers may say it for this model",
        )
    ids_T = np.asarray(found["input_ids"])[0].astype(np.uint32)
    starts, ends = np.asarray(found["offset_mapping"])[0].T
    last = np.where(ends > starts, ends - 1, -1)
    of_pictures = np.zeros(len(ids_T), np.bool_)
    shift = np.zeros(len(ids_T), np.int64)
    for start, end in spans:
        of_pictures |= (last >= start) & (starts < end)
        shift += np.where(last >= end, end - start - 1, 0)  # a picture is one character
    characters = np.where(of_pictures | (last < 0), -1, last - shift)
    return ExpandedText(
        ids=ids_T, characters=characters, pictures_end=int(np.flatnonzero(of_pictures).max(initial=-1)) + 1
    )


def _is_by_token(name: str, x: Tensor, total: int) -> bool:
    """Whether an argument of the model has a value for each of so many tokens."""
    return x.shape[1] == total and (name.endswith(("_ids", "attention_mask")) and "pixel" not in name)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
