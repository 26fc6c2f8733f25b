"""Exact EK-FAC influence by plain autograd and dense products, from the factors that an index has on disk."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer


class Reference:
    """Exact EK-FAC influence in float64: one backward a document, dense products, no code of gindex's passes."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "manifests/00000001.json").read_text())
        self.model = AutoModelForCausalLM.from_pretrained(manifest["model"]["name"], dtype=torch.float64)
        self.tokenizer = AutoTokenizer.from_pretrained(manifest["model"]["name"])
        self.damping = manifest["settings"]["curvature"]["damping_scale"]
        self.layers = manifest["layers"]
        self.tensors = {}
        for path in (folder / "factors").iterdir():
            self.tensors |= {name: tensor.double() for name, tensor in load_file(path).items()}

    def gradients(self, tokens: list[int], first_target: int) -> list[Tensor]:
        """Return G [O, I] of every tracked layer, the bias as its last column; [P, 1] of a parameter by itself."""
        log_probabilities = self.model(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
        positions = range(first_target, len(tokens))
        loss = -sum(log_probabilities[position - 1, tokens[position]] for position in positions)
        layers = [self._parameters(layer["name"]) for layer in self.layers]
        found = iter(torch.autograd.grad(loss, [parameter for layer in layers for parameter in layer]))
        gradients = [[next(found) for _ in layer] for layer in layers]
        return [torch.cat([g if g.dim() == 2 else g[:, None] for g in of_layer], 1) for of_layer in gradients]

    def _parameters(self, name: str) -> list[Tensor]:
        parameters = dict(self.model.named_parameters())
        return [parameters[name]] if name in parameters else list(self.model.get_submodule(name).parameters())

    def influence(self, query: list[int], first_target: int, documents: list[list[int]]) -> np.ndarray:
        preconditioned = []
        for layer, G in zip(self.layers, self.gradients(query, first_target), strict=True):
            Q_A = self.basis("activation", layer["source"], layer["inputs"], layer.get("input_block"))
            Q_S = self.basis("gradient", layer["name"], layer["outputs"], layer.get("output_block"))
            Lambda = self.tensors[layer["name"]]
            V = (Q_S.T @ G @ Q_A) / (Lambda + self.damping * Lambda.mean())
            preconditioned.append(Q_S @ V @ Q_A.T)
        scores = []
        for tokens in documents:
            gradients = self.gradients(tokens, 1) if len(tokens) > 1 else [torch.zeros(1)]
            scores.append(sum(float((X * G).sum()) for X, G in zip(preconditioned, gradients, strict=False)))
        return np.array(scores)

    def basis(self, side: str, name: str, width: int, block: int | None) -> Tensor:
        """Return the directions of a side as columns [width, width], as docs/format.md says that they are stored."""
        if block is None:
            return self.tensors[f"{side}.{name}"].T
        Q = torch.zeros(width, width, dtype=torch.float64)
        for direction, number in enumerate(self.tensors[f"{side}_blocks.{name}"].long().tolist()):
            if block == 1:
                Q[number, direction] = 1
            else:
                start, stop = number * block, min(width, number * block + block)
                Q[start:stop, direction] = self.tensors[f"{side}.{name}"][direction, : stop - start]
        return Q
