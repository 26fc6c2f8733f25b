"""Make all six studies: corpora, four small models, an index of each, and a report of every study.

    python tools/benchmarks/studies.py [--out .cache/studies]

What is there already is kept, so an interrupted run goes on where it was. Less than an hour on two cores, half of it
for the training. The corpora are downloaded with apt-get: FOLDOC, and manual pages in four languages.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
FOLDOC = Path(".cache/corpora/foldoc.jsonl")
DOCUMENTS, LEARNED = 2000, 600
"""Entries of FOLDOC that are indexed, and how many of them the model for `memorization` sees thirty times."""

MODELS = {
    "foldoc-small": ("foldoc", 32, 2, 10),
    "foldoc-large": ("foldoc", 128, 4, 10),
    "foldoc-learned": ("foldoc-learned", 128, 4, 30),
    "manpages": ("manpages", 128, 4, 8),
}
"""Corpus, width, blocks and epochs of each model."""

STUDIES = {
    "sparsity": ("foldoc-large",),
    "layers": ("foldoc-large",),
    "word-order": ("foldoc-large",),
    "cross-lingual": ("manpages",),
    "scale": ("foldoc-small", "foldoc-large"),
    "memorization": ("foldoc-learned",),
}
"""Indexes of each study, by the name of the model."""


def run(*command: object) -> None:
    """Show a command and run it."""
    print("$", *command, file=sys.stderr)
    subprocess.run([str(part) for part in command], check=True)


def once(made: Path, make: Callable[[], None]) -> None:
    """Make something that is not there yet."""
    if not made.exists():
        make()


def draw(corpus: Path, entries: int, out: Path) -> None:
    """Draw entries of a corpus; of two draws the smaller is the beginning of the larger."""
    lines = corpus.read_text(encoding="utf-8").split("\n")[:-1]
    random.Random(0).shuffle(lines)
    out.write_text("\n".join(lines[:entries]) + "\n", encoding="utf-8")


def corpora(out: Path) -> None:
    """Make the three corpora."""
    once(FOLDOC, lambda: run(sys.executable, DATA / "fetch_foldoc.py", FOLDOC))
    for name, entries in (("foldoc", DOCUMENTS), ("foldoc-learned", LEARNED)):
        path = out / f"{name}.jsonl"
        once(path, lambda path=path, entries=entries: draw(FOLDOC, entries, path))
    pages = out / "manpages.jsonl"
    once(pages, lambda: run(sys.executable, DATA / "parallel_manpages.py", pages))


def train(out: Path, name: str) -> None:
    """Train a model."""
    corpus, width, blocks, epochs = MODELS[name]
    sizes = ("--width", width, "--blocks", blocks, "--epochs", epochs)
    run(sys.executable, DATA / "train_small.py", out / f"{corpus}.jsonl", out / "models" / name, *sizes)


def main() -> None:
    """Make what is missing, and the reports anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(".cache/studies"))
    parser.add_argument("--only", choices=list(STUDIES), help="make one report")
    out, only = (arguments := parser.parse_args()).out, arguments.only
    gindex = Path(sys.executable).with_name("gindex")
    (out / "models").mkdir(parents=True, exist_ok=True)
    corpora(out)
    chosen = {study: names for study, names in STUDIES.items() if only in (None, study)}
    for name in dict.fromkeys(name for names in chosen.values() for name in names):
        once(out / "models" / name / "tokenizer.json", lambda name=name: train(out, name))
        corpus = out / f"{MODELS[name][0]}.jsonl"
        options = ("--dimension", 4096, "--fidelity-queries", 0)  # the studies recompute influence without projection
        run(gindex, "build", corpus, "--model", out / "models" / name, "--out", out / "indexes" / name, *options)
    for study, names in chosen.items():
        run(gindex, "study", study, *(out / "indexes" / name for name in names), "--out", out / f"{study}.html")
    for study in chosen:
        numbers = json.loads((out / f"{study}.json").read_text(encoding="utf-8"))
        print(f"\n{out / study}.html", *numbers["findings"], sep="\n  ")


if __name__ == "__main__":
    main()
