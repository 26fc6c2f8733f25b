"""The documents and queries of a case as padded tensors, for peers that are given a model and batches.

Axes: N documents or queries, T tokens.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

IGNORED = -100


def padded(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids, labels (-100 where a token doesn't count) and a mask of what isn't padding, each [N, T]."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    longest = max(len(row["input_ids"]) for row in rows)
    ids_NT = torch.zeros(len(rows), longest, dtype=torch.long)
    labels_NT = torch.full((len(rows), longest), IGNORED)
    mask_NT = torch.zeros(len(rows), longest, dtype=torch.long)
    for n, row in enumerate(rows):
        ids_NT[n, : len(row["input_ids"])] = torch.tensor(row["input_ids"])
        labels_NT[n, : len(row["input_ids"])] = torch.tensor(row["labels"])
        mask_NT[n, : len(row["input_ids"])] = 1
    return ids_NT, labels_NT, mask_NT
