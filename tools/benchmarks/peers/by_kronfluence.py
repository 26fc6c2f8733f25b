"""Scores by kronfluence 1.0.1's EK-FAC at its default damping, in float32: run by `tools/benchmarks/methods.py peer`.

    python by_kronfluence.py CASE WORK OUT.npy

Axes: Q queries, N documents, T tokens.
"""

import argparse
from pathlib import Path

import kronfluence
import numpy as np
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from padded import IGNORED, padded
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transformers import AutoModelForCausalLM

BATCH = 10


class SummedLoss(kronfluence.Task):
    """The summed loss of the tokens that count, for documents and queries alike."""

    def __init__(self, names: list[str]) -> None:
        """Take the names of the layers to track."""
        self.names = names

    def compute_train_loss(
        self, batch: tuple[Tensor, Tensor, Tensor], model: nn.Module, sample: bool = False
    ) -> Tensor:
        """Sum over the batch; labels may be sampled from the model."""
        ids_NT, labels = batch[0], batch[1][:, 1:]
        log_p = model(ids_NT, use_cache=False).logits[:, :-1].log_softmax(-1)
        counts = labels != IGNORED
        if sample:
            with torch.no_grad():
                labels = torch.multinomial(log_p.flatten(0, 1).exp(), 1).view(labels.shape)
        return -(log_p.gather(2, labels.clamp(min=0)[..., None])[..., 0] * counts).sum()

    def compute_measurement(self, batch: tuple[Tensor, Tensor, Tensor], model: nn.Module) -> Tensor:
        """The same: its product with a document's gradient is positive where the document helps."""
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self) -> list[str]:
        """Every linear layer of the body."""
        return self.names

    def get_attention_mask(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """What isn't padding: without it padding would count in the covariances of activations."""
        return batch[2]


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(arguments.case / "model", dtype=torch.float32).eval()
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name != "lm_head"]
    task = SummedLoss(names)
    analyzer = Analyzer(
        "case", prepare_model(model, task), task, cpu=True, output_dir=str(arguments.work), disable_tqdm=True
    )
    documents, queries = (TensorDataset(*padded(arguments.case / f"{kind}.jsonl")) for kind in ("documents", "queries"))
    analyzer.fit_all_factors(
        "factors", documents, per_device_batch_size=BATCH, factor_args=FactorArguments(), overwrite_output_dir=True
    )
    analyzer.compute_pairwise_scores(
        "scores",
        "factors",
        query_dataset=queries,
        train_dataset=documents,
        per_device_query_batch_size=len(queries),
        per_device_train_batch_size=BATCH,
        score_args=ScoreArguments(),
        overwrite_output_dir=True,
    )
    np.save(arguments.out, analyzer.load_pairwise_scores("scores")["all_modules"].double().numpy())


if __name__ == "__main__":
    main()
