"""Classifiers of pictures, with the image processor that is saved beside them.

Axes: N pictures, C channels, H and W pixels.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.config import PICTURE, CorpusConfig
from gindex.corpus.batches import TokenBatch
from gindex.corpus.content_documents import picture_encoder
from gindex.corpus.contents import Content, positions, tensor_content
from gindex.corpus.encoding import Encoder
from gindex.corpus.labels import Label, Labels
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.packages import require
from gindex.corpus.pictures import CHANNELS, decoded, picture_content
from gindex.errors import ModelError, QueryError
from gindex.model.devices import to_device
from gindex.model.library_messages import first_line
from gindex.model.tasks.classification import ClassificationKind, TextClassifier
from gindex.queries.counted_text import TokenLimit
from gindex.queries.forms import name_of
from gindex.queries.query import Query

PIXELS = "pixel_values"
"""Argument of the models of transformers that read pictures."""

TRIED = 256
"""Random pictures that there are to try a model on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadPicture:
    """A picture, and the positions that it counts for."""

    content: Content
    positions: int

    def asked(self, label: Label) -> WeightedTokens:
        """The same, asked for one label."""
        return WeightedTokens.of_content(self.content, self.positions, label)


class PictureClassifier(TextClassifier):
    """One label for a picture: a `ModelTask`."""

    reads_tokens = False
    vocabulary = 1
    probe_tokens = 1

    def __init__(self, model: Any, labels: Labels, processor: Any) -> None:
        """Wrap a model, its labels and its image processor."""
        super().__init__(model, labels)
        self._processor, self.channels = processor, int(getattr(model.config, "num_channels", 3))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape [C, H, W] of what the processor makes of a picture."""
        return self.shape_of(64, 64)

    def shape_of(self, height: int, width: int) -> tuple[int, ...]:
        """Shape [C, H, W] of what the processor makes of a grey picture of so many pixels."""
        library = require("PIL.Image", "pictures")
        grey = library.fromarray(np.full((height, width), 128, np.uint8)).convert(CHANNELS[self.channels])
        return self._prepared(grey).shape

    @property
    def positions(self) -> int:
        """Positions that a picture counts for."""
        return positions(int(np.prod(self.shape)))

    def trial(self, ids: npt.NDArray[np.uint32]) -> Objective:
        """Return a picture of random pixels with the first label; the first id says which."""
        pixels_CHW = np.random.default_rng(int(ids[0]) % TRIED).standard_normal(self.shape).astype(np.float32)
        read = ReadPicture(content=tensor_content({PIXELS: pixels_CHW}), positions=self.positions)
        return Objective((read.asked(np.zeros(self._labels.size, np.float32)),))

    def inputs(self, batch: TokenBatch) -> dict[str, Tensor]:
        """Return the prepared pictures [N, C, H, W]."""
        pixels_NCHW = np.stack([self._pixels(content) for content in batch.contents or ()])
        dtype = next(self.model.parameters()).dtype
        return {PIXELS: to_device(pixels_NCHW, self.device).to(dtype)}

    def _pixels(self, content: Content) -> npt.NDArray[np.float32]:
        if not content.is_picture:
            return content.tensors()[PIXELS]
        return self._prepared(decoded(content, "picture", self.channels))

    def _prepared(self, picture: Any) -> npt.NDArray[np.float32]:
        (pixels_CHW,) = self._processor(images=[picture], return_tensors="np")[PIXELS]
        return np.asarray(pixels_CHW, np.float32)


class PictureKind(ClassificationKind):
    """A model that gives one label for a picture."""

    name = "image-classification"
    auto_model = "AutoModelForImageClassification"
    mapping = "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING"
    described = "a classifier of pictures"
    document_forms = (PICTURE,)
    corpus_settings = ("image_field", "label_field")
    endings = ("ForImageClassification",)
    variants = ()
    remedy = "check preprocessor_config.json beside it"
    reads_tokens = False

    @classmethod
    def load_reader(cls, folder: Path) -> Any:
        """Load the image processor of a model, in the form that needs Pillow and NumPy alone.

        Raises:
            MissingDependencyError: Pillow is not installed.
            ModelError: There is none that can be used.
        """
        require("PIL", str(folder))
        from transformers import AutoImageProcessor

        try:
            load: Any = AutoImageProcessor.from_pretrained
            return load(str(folder), backend="pil")
        except Exception as error:
            raise ModelError(
                field=folder,
                expected="an image processor beside the model (preprocessor_config.json)",
                found=f"none that loads ({first_line(error)})",
                remedy="save it there with its save_pretrained()",
            ) from error

    @classmethod
    def reader_fingerprint(cls, reader: Any) -> str:
        """A SHA-256 of the settings of an image processor."""
        settings = {name: value for name, value in json.loads(reader.to_json_string()).items() if "path" not in name}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def tokens(self) -> list[int]:
        """Numbers of random pictures to try the model on."""
        return list(range(TRIED))

    def check(self, most_tokens: int) -> None:
        """Check that pictures become those of one size, and that outputs depend on no other picture of a batch.

        Raises:
            ModelError: They do not, or they do.
            NonFiniteError: Outputs are NaN or infinite.
        """
        task = self.task()
        shapes = {task.shape_of(height, width) for height, width in ((64, 64), (48, 96), (96, 48))}
        if len(shapes) > 1:
            raise ModelError(
                field=self.place,
                expected="an image processor that makes all pictures of one size",
                found=", ".join(str(list(shape)) for shape in sorted(shapes)),
                remedy="set size and crop_size in preprocessor_config.json",
            )
        super().check(most_tokens)

    def check_length(self, tokens: int) -> None:
        """Check nothing: all pictures are of one size."""
        del tokens

    def encoder(self, config: CorpusConfig, most_tokens: int, seed: int) -> Encoder:
        """What makes one part of a picture and its label."""
        del config, most_tokens, seed
        return picture_encoder(self.labels, self.task().positions)

    def read(self, query: Query, limit: TokenLimit) -> tuple[ReadPicture, Sequence[str]]:
        """The picture of a query.

        Raises:
            QueryError: It has none, or a text.
        """
        del limit
        name = name_of(query)
        if query.image is None or query.prompt or query.pair is not None:
            found = "none" if query.image is None else "a text beside it"
            raise QueryError(field=name, expected="a picture, as `image`", found=found, remedy="see docs/tasks.md")
        content = picture_content(query.image, f"{name}, image")
        return ReadPicture(content=content, positions=self.task().positions), ()

    def task(self) -> PictureClassifier:
        """The model with its loss."""
        return PictureClassifier(self.model, self.labels, self.tokenizer)
