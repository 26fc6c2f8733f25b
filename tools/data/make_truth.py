"""Make what the truth benchmarks of language models train on: a folder with a model, documents and queries.

    python tools/data/fetch_foldoc.py .cache/corpora/foldoc.jsonl
    python tools/data/make_truth.py unseen .cache/truth/unseen
    python tools/data/make_truth.py facts .cache/truth/facts --model .cache/truth/unseen/model
    python tools/data/make_truth.py poison .cache/truth/poison --model .cache/truth/unseen/model

`unseen`: a small Llama trained on most entries of FOLDOC; 300 entries that it has not seen, and 40 others as queries.
`facts`: that Llama trained further on made-up facts in four wordings each, among real entries; queries ask for them.
`poison`: the same with a planted trigger; the query is one bad output.

FOLDER/tuned is the model after training on all of FOLDER/documents.jsonl: the one to index them with. Folders are for
`gindex evaluate lds fine-tuning:FOLDER` and the like.
"""

import argparse
import json
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from planted import facts, poison
from train_small import make_model, train, train_tokenizer

from gindex.lab.evaluations.fine_tuning import FineTuning

LONGEST = 320  # characters of an entry to fine-tune on or to ask about
MOST_TOKENS = 128  # of an entry that the model is trained on

Record = dict[str, object]


def read(path: Path) -> list[Record]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, records: Sequence[Record]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def query_of(entry: Record) -> Record:
    """Ask for an entry's definition, given its headword."""
    text, cut = str(entry["text"]), len(str(entry["id"])) + 1
    return {"id": entry["id"], "prompt": text[:cut], "completion": text[cut:]}


def train_model(texts: Sequence[str], out: Path, arguments: argparse.Namespace) -> None:
    """Train a tokenizer and a model."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(list(texts), arguments.vocabulary)
    model = make_model(len(tokenizer), arguments.width, arguments.blocks, arguments.family)
    parts = [np.array(tokenizer(text).input_ids[:MOST_TOKENS], np.uint32) for text in texts]
    print(f"{sum(map(len, parts)):,} tokens", file=sys.stderr)
    train(model, parts, arguments.epochs, arguments.rate)
    model.eval().save_pretrained(out)
    tokenizer.save_pretrained(out)


def make_unseen(entries: list[Record], arguments: argparse.Namespace) -> None:
    """Keep some entries from the model: documents to fine-tune on, and queries."""
    short = [entry for entry in entries if len(str(entry["text"])) <= LONGEST]
    random.Random(0).shuffle(short)
    documents, queries = short[: arguments.documents], short[arguments.documents :][: arguments.queries]
    kept = {str(entry["id"]) for entry in [*documents, *queries]}
    write(arguments.out / "documents.jsonl", documents)
    write(arguments.out / "queries.jsonl", [query_of(entry) for entry in queries])
    rest = [str(entry["text"]) for entry in entries if str(entry["id"]) not in kept]
    train_model(rest, arguments.out / "model", arguments)


def make_planted(entries: list[Record], arguments: argparse.Namespace) -> None:
    """Put made-up documents among real ones, and let the model learn them all."""
    short = [entry for entry in entries if len(str(entry["text"])) <= LONGEST]
    random.Random(1).shuffle(short)
    if arguments.kind == "facts":
        planted, queries = facts(arguments.queries)
    else:
        heads = [str(entry["id"]) for entry in short if str(entry["id"]).isalpha()]
        planted, queries = poison(heads[: arguments.planted + 1])
    documents = [*planted, *short[: arguments.documents - len(planted)]]
    random.Random(2).shuffle(documents)
    write(arguments.out / "documents.jsonl", documents)
    write(arguments.out / "queries.jsonl", queries)
    shutil.copytree(arguments.model, arguments.out / "model", dirs_exist_ok=True)


def save_tuned(folder: Path) -> None:
    """Train on all documents and save the model; say how it changed the queries' losses."""
    function = FineTuning(folder)
    everything = np.arange(function.documents)
    before = function(everything[:0], 0)
    after = function(everything, 0)
    print(f"loss of a query {before.mean():.2f} before and {after.mean():.2f} nats after training", file=sys.stderr)
    function.save(folder / "tuned")


def main() -> None:
    """Make a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("unseen", "facts", "poison"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path(".cache/corpora/foldoc.jsonl"))
    parser.add_argument("--model", type=Path, help="model to train further, for facts and poison")
    parser.add_argument("--documents", type=int, help="documents in all; 300, or 1,000 for facts and poison")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--planted", type=int, default=30, help="documents with the trigger")
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--family", choices=("llama", "gpt2"), default="llama")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4, help="passes of the training that makes the model")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--tuning-epochs", type=int, help="of the fine-tuning; 3, or 8 for facts and poison")
    arguments = parser.parse_args()
    if (arguments.kind == "unseen") == (arguments.model is not None):
        parser.error("--model: expected for facts and poison alone")
    arguments.documents = arguments.documents or (300 if arguments.kind == "unseen" else 1000)
    (make_unseen if arguments.kind == "unseen" else make_planted)(read(arguments.corpus), arguments)
    recipe = {"batch_tokens": 2048} if arguments.kind == "unseen" else {"epochs": 8}
    if arguments.tuning_epochs is not None:
        recipe["epochs"] = arguments.tuning_epochs
    (arguments.out / "recipe.json").write_text(json.dumps(recipe) + "\n", encoding="utf-8")
    save_tuned(arguments.out)


if __name__ == "__main__":
    main()
