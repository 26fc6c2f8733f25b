"""Scores by TRAK of dattri 0.3.0, of one model: run by `tools/benchmarks/methods.py peer`.

    python by_dattri.py CASE OUT.npy --dimension 128

Its gradients are of the log-odds of a document's or query's mean token probability, as its own examples of language
models have it. The kernel is regularised where the dimension is that of the documents or more.

Axes: Q queries, N documents, T tokens.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from padded import IGNORED, padded
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModelForCausalLM

BATCH = 20


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--regularization", type=float, default=0.0)
    arguments = parser.parse_args()
    from dattri.algorithm.trak import TRAKAttributor  # --help is shown where it isn't installed
    from dattri.task import AttributionTask

    model = AutoModelForCausalLM.from_pretrained(
        arguments.case / "model", dtype=torch.float32, attn_implementation="eager"
    ).eval()

    def mean_loss(parameters: dict, row: tuple[Tensor, Tensor]) -> Tensor:
        ids_T, labels_T = row
        length = len(ids_T)
        mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
        given = {"input_ids": ids_T[None], "attention_mask": mask, "use_cache": False}
        logits_TV = functional_call(model, parameters, (), given).logits[0, :-1]
        counts = labels_T[1:] != IGNORED
        picked = logits_TV.log_softmax(-1).gather(1, labels_T[1:].clamp(min=0)[:, None])[:, 0]
        return -(picked * counts).sum() / counts.sum()

    def log_odds(parameters: dict, row: tuple[Tensor, Tensor]) -> Tensor:
        loss = mean_loss(parameters, row)
        return torch.log1p(-torch.exp(-loss)) + loss  # minus log p / (1 - p): the sign that a loss has

    def probability(parameters: dict, row: tuple[Tensor, Tensor]) -> Tensor:
        return torch.exp(-mean_loss(parameters, row))

    task = AttributionTask(loss_func=log_odds, model=model, checkpoints=model.state_dict())
    attributor = TRAKAttributor(
        task,
        correct_probability_func=probability,
        projector_kwargs={"proj_dim": arguments.dimension, "device": "cpu"},
        regularization=arguments.regularization,
    )
    loaders = [DataLoader(TensorDataset(*padded(arguments.case / f"{kind}.jsonl")[:2]), BATCH) for kind in
               ("documents", "queries")]  # fmt: skip
    with torch.no_grad():
        attributor.cache(loaders[0])
        scores_NQ = attributor.attribute(loaders[1])
    scores_QN = scores_NQ.double().numpy()
    np.save(arguments.out, scores_QN if len(scores_QN) == len(loaders[1].dataset) else scores_QN.T)


if __name__ == "__main__":
    main()
