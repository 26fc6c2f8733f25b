"""Teach a model a habit, and find the conversations that taught it, by the assistant's tokens and by all tokens.

    python run.py MODEL OUT

OUT is a folder. The commands of gindex are printed as they would be typed, and run in this process.
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fine_tune import fine_tune_and_ask
from gindex_cli.commands import gindex

HERE = Path(__file__).parent
LOSSES = ("assistant", "all")
QUERIES = {"answers": "whole answer", "reminders": "its reminder"}
"""Files of queries that `fine_tune.py` writes, and what of them counts."""

FIRST_TENTH = 10
"""Where a detection curve, at hundredths of the documents, is read beside its beginning."""


def run(*arguments: str | Path) -> None:
    """Print and run a command of gindex."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ gindex {shlex.join(words)}", flush=True)
    gindex.main(words, standalone_mode=False)


def row(loss: str, counted: str, method: str, numbers: dict[str, Any]) -> tuple[str, ...]:
    """What one method found: planted conversations among as many as were planted, and among the first tenth."""
    planted, found = numbers["planted"], numbers["methods"][method]
    auc = found["auc"]
    return (
        loss,
        counted,
        method,
        f"{found['precision'] * planted:.1f} of {planted}",
        f"{found['curve'][FIRST_TENTH] * planted:.1f} of {planted}",
        f"{auc['mean']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]",
    )


def table(rows: Sequence[tuple[str, ...]], documents: int) -> str:
    """Rows under a header, in columns."""
    tenth = f"in the first {round(documents * FIRST_TENTH / 100)}"
    header = ("loss of documents", "query", "ranking", "in the first as many", tenth, "AUC")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in (header, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def main() -> None:
    """Fine-tune, build, evaluate, compare and search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a Llama with a chat template: a folder, or a name on the hub")
    parser.add_argument("out", type=Path)
    parser.add_argument("--conversations", type=Path, default=HERE / "conversations.jsonl")
    parser.add_argument("--questions", type=Path, default=HERE / "questions.jsonl")
    parser.add_argument("--epochs", type=int, default=2, help="passes of the fine-tuning over the conversations")
    arguments = parser.parse_args()
    trained = fine_tune_and_ask(
        arguments.model, arguments.out, arguments.conversations, arguments.questions, epochs=arguments.epochs
    )
    layers = ["--untrack", "*", *(word for name in trained for word in ("--track", f"{name}.*"))]
    rows, documents = [], 0
    for loss in LOSSES:
        index = arguments.out / loss
        run(
            "build", arguments.conversations, "--model", arguments.out / "model", "--out", index, "--loss", loss,
            *layers, "--fit-documents", "200", "--calibration-documents", "32", "--fidelity-queries", "0",
        )  # fmt: skip
        for queries, counted in QUERIES.items():
            report = arguments.out / f"{queries}-{loss}.html"
            run(
                "evaluate", "poison", index, "--queries", arguments.out / f"{queries}.jsonl", "--where",
                "planted = true", "--method", "index", "--method", "bm25", "--out", report,
            )  # fmt: skip
            numbers = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))["numbers"]
            documents = numbers["documents"]
            rows += [row(loss, counted, method, numbers) for method in numbers["methods"]]
    print(f"\n{table(rows, documents)}")
    run("search", arguments.out / LOSSES[0], "--messages", arguments.out / "answer.json", "-k", "5")


if __name__ == "__main__":
    main()
