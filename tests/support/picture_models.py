"""Tiny random classifiers of pictures, and pictures of two colours to classify."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import nn

NAMES = {"id2label": {0: "red", 1: "blue"}, "label2id": {"red": 0, "blue": 1}}
SIZE = 16
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": (
        "ViTForImageClassification", "ViTConfig",
        {"image_size": SIZE, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24},
    ),
    "resnet": (
        "ResNetForImageClassification", "ResNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 1], "layer_type": "basic"},
    ),
    "convnext": (
        "ConvNextForImageClassification", "ConvNextConfig",
        {"num_channels": 3, "patch_size": 2, "hidden_sizes": [8, 12], "depths": [1, 1], "num_stages": 2,
         "image_size": SIZE},
    ),
    "dinov2": (
        "Dinov2ForImageClassification", "Dinov2Config",
        {"image_size": SIZE, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
    ),
}  # fmt: skip


def save_picture_model(name: str, folder: Path, names: dict[str, Any] = NAMES) -> nn.Module:
    """Save a tiny classifier with its image processor."""
    architecture, settings, sizes = MODELS[name]
    torch.manual_seed(0)
    model: Any = getattr(transformers, architecture)(getattr(transformers, settings)(**sizes, **names)).eval()
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return model


def picture(colour: str, seed: int, size: tuple[int, int] = (20, 14)) -> Image.Image:
    """A noisy picture that is red or blue."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
    pixels[..., 0 if colour == "red" else 2] += 120
    return Image.fromarray(pixels)


def save_pictures(folder: Path, count: int, wrong: int = 0) -> None:
    """Save so many pictures of each colour in a folder for each class; of the first, some in the other's folder."""
    for n in range(count):
        for colour, other in (("red", "blue"), ("blue", "red")):
            label = other if n < wrong and colour == "red" else colour
            (folder / label).mkdir(parents=True, exist_ok=True)
            picture(colour, 2 * n + (colour == "red")).save(folder / label / f"{colour}-{n}.png")


def train(model: nn.Module, count: int, steps: int = 40) -> None:
    """Train a classifier on pictures of both colours."""
    colours = [colour for n in range(count) for colour in ("red", "blue")]
    processor = transformers.ViTImageProcessorPil(size={"height": SIZE, "width": SIZE})
    pictures = [picture(colour, 1000 + n) for n, colour in enumerate(colours)]
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    labels = torch.tensor([int(colour == "blue") for colour in colours])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(pixel_values=pixels, labels=labels).loss.backward()
        optimizer.step()
    model.eval()
