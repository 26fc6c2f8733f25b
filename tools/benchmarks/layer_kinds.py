"""What is tracked of models of every task and of torch's own kinds of layers, and whether gradients are autograd's.

    python tools/benchmarks/layer_kinds.py

Models are small and have random weights, as in tests/tasks and tests/model. Gradients of three documents in one batch
are compared with those that autograd gives through the model as it is, and with those of each document alone, in
float32.

Prints the second table of docs/benchmarks/families.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))  # for `transcriptions`

from picture_models import MODELS as PICTURE_MODELS
from picture_models import save_picture_model
from task_models import TASK_MODELS
from transcriptions import save_whisper

from gindex.config import ModelConfig
from gindex.corpus.batches import pad
from gindex.model.gradient_check import gradient_errors
from gindex.model.layer_choice import LayerChoice
from gindex.model.layers import LayerTable
from gindex.model.tracked_model import TrackedModel
from gindex.model.tracking import track_layers
from gindex.vectors.influence import document_gradients

PICTURES = {"vit": "ViT", "resnet": "ResNet", "convnext": "ConvNeXt", "dinov2": "DINOv2"}
DOCUMENTS = 3
WIDTH = 8


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A model with its layers.

    Attributes:
        name: What people call it.
        table: What is tracked by default.
        everything: What is tracked with `--layers everything`.
        losses: The losses [N] of some of the documents, by their numbers.
    """

    name: str
    table: LayerTable
    everything: LayerTable
    losses: Callable[[Sequence[int]], Tensor]

    def row(self) -> str:
        """The row of the table."""
        errors, change = zip(*(self._errors(of) for of in (self.table, self.everything)), strict=True)
        whole, most = self.everything, f"{max(errors):.0e}"
        share = sum(layer.parameters for layer in whole) / whole.parameters
        return f"| {self.name} | {self.table.share:.0%} | {share:.0%} | {most} | {max(change):.0e} |"

    def _errors(self, table: LayerTable) -> tuple[float, float]:
        found = gradient_errors(table.layers, lambda count: self.losses(range(count))[:, None], DOCUMENTS)
        every = range(DOCUMENTS)
        together, _ = document_gradients(table.layers, DOCUMENTS, lambda: self.losses(every))
        alone = [document_gradients(table.layers, 1, lambda n=n: self.losses([n]))[0][0] for n in every]
        change = (together - torch.stack(alone)).norm(dim=1) / together.norm(dim=1)
        return max(each.relative or 0.0 for each in found.values()), float(change.max())


def of_folder(name: str, folder: Path) -> Outcome:
    """What is found of a model in a folder."""
    every = TrackedModel.load(ModelConfig(name=str(folder), device="cpu", dtype="float32", layers="everything"))
    generator = np.random.default_rng(0)
    made = [every.task.trial(generator.integers(5, 24, 4 + 3 * n).astype(np.uint32)) for n in range(DOCUMENTS)]

    def losses(numbers: Sequence[int]) -> Tensor:
        return every.task.losses(pad([made[n] for n in numbers], np.arange(len(numbers))))

    usual = TrackedModel.of(every.loaded, ModelConfig(name=str(folder), device="cpu"))
    return Outcome(name=name, table=usual.table, everything=every.table, losses=losses)


def of_module(name: str, model: nn.Module, *shape: int) -> Outcome:
    """What is found of a module that reads documents of a shape, and whose outputs have a class each."""
    inputs = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))

    def losses(numbers: Sequence[int]) -> Tensor:
        outputs = model(inputs[list(numbers)])
        return outputs.flatten(1).log_softmax(1)[:, 0].neg()

    def probe(count: int) -> Tensor:
        return model(inputs[:count])

    every = track_layers(model, probe, LayerChoice(layers="everything"))
    return Outcome(name=name, table=track_layers(model, probe), everything=every, losses=losses)


class Attention(nn.Module):
    """torch's own attention of a text to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(WIDTH, 2, batch_first=True), nn.Linear(WIDTH, 3)

    def forward(self, x_NTI: Tensor) -> Tensor:
        """Classes [N, 3]."""
        return self.last(self.attention(x_NTI, x_NTI, x_NTI)[0].sum(1))


class Recurrent(nn.Module):
    """One of torch's own recurrences, both ways and of two layers, and classes of its end."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.inner = kind(WIDTH, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.last = nn.Linear(12, 3)

    def forward(self, x_NTI: Tensor) -> Tensor:
        """Classes [N, 3]."""
        return self.last(self.inner(x_NTI)[0][:, -1])


def convolution(kind: type[nn.Module], after: type[nn.Module], groups: int = 1) -> nn.Module:
    """Two convolutions and classes of their mean."""
    layers = [kind(4, 8, 3, padding=1, groups=groups), nn.GELU(), kind(8, 8, 3, stride=2), after(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 3))


def outcomes() -> Iterator[Outcome]:
    """Everything that the table has a row for."""
    with tempfile.TemporaryDirectory() as name:
        for n, each in enumerate(TASK_MODELS):
            yield of_folder(each.name, each.save(Path(name) / str(n)))
        for kind in PICTURE_MODELS:
            save_picture_model(kind, Path(name) / kind)
            yield of_folder(PICTURES[kind], Path(name) / kind)
        yield whisper(Path(name) / "whisper")
    torch.manual_seed(0)
    yield of_module("Conv1d", convolution(nn.Conv1d, nn.AdaptiveAvgPool1d), 4, 12)
    yield of_module("Conv2d in groups", convolution(nn.Conv2d, nn.AdaptiveAvgPool2d, 2), 4, 8, 8)
    yield of_module("Conv2d, depthwise", convolution(nn.Conv2d, nn.AdaptiveAvgPool2d, 4), 4, 8, 8)
    yield of_module("Conv3d", convolution(nn.Conv3d, nn.AdaptiveAvgPool3d), 4, 6, 6, 6)
    yield of_module("nn.MultiheadAttention", Attention(), 5, WIDTH)
    yield of_module("nn.LSTM", Recurrent(nn.LSTM), 5, WIDTH)
    yield of_module("nn.GRU", Recurrent(nn.GRU), 5, WIDTH)


def whisper(folder: Path) -> Outcome:
    """What is found of a model that reads sounds: their features, and the text that is said so far."""
    model = save_whisper(folder)
    generator = torch.Generator().manual_seed(0)
    config = model.config
    shape = 16, config.num_mel_bins, 2 * config.max_source_positions
    features, texts = torch.randn(shape, generator=generator), torch.randint(3, 10, (16, 5), generator=generator)

    def run(numbers: Sequence[int]) -> Tensor:
        these = list(numbers)
        return model(input_features=features[these], decoder_input_ids=texts[these], use_cache=False).logits

    def losses(numbers: Sequence[int]) -> Tensor:
        logits_NTV, labels_NT = run(numbers)[:, :-1], texts[list(numbers)][:, 1:]
        return nn.functional.cross_entropy(logits_NTV.mT, labels_NT, reduction="none").sum(1)

    every = track_layers(model, lambda n: run(range(n)), LayerChoice(layers="everything"))
    table = track_layers(model, lambda n: run(range(n)))
    return Outcome(name="Whisper", table=table, everything=every, losses=losses)


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print("| model or layer | of the body, by default | of all weights, everything | error | moves with the batch |")
    print("| --- | --- | --- | --- | --- |")
    for outcome in outcomes():
        print(outcome.row(), flush=True)


if __name__ == "__main__":
    main()
