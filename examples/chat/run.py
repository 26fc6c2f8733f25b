"""Fine-tune a model on conversations, and look for those that teach a habit, by the assistant's tokens and by all.

    python run.py OUT

OUT is a folder. The commands of gindex are printed as they would be typed, and run in this process.
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fine_tune import FineTuning, fine_tune
from gindex_cli.commands import gindex
from small_model import make_small_model

HERE = Path(__file__).parent
LOSSES = ("assistant", "all")
METHODS = ("index", "exact", "bm25")
QUERIES = {"answers": "whole answer", "reminders": "its reminder"}
"""Files of queries, and what of each counts."""

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


def table(rows: Sequence[tuple[str, ...]], planted: int, documents: int) -> str:
    """Rows under a header, in columns."""
    tenth = f"in the first {round(documents * FIRST_TENTH / 100)}"
    header = ("loss of documents", "query", "ranking", f"in the first {planted}", tenth, "AUC")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in (header, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def layers(model: Path, blocks: int | None) -> list[str]:
    """Options of a build that leave out what was not trained."""
    if blocks is None:
        return []
    count = json.loads((model / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    tracked = (("--track", f"model.layers.{n}.*") for n in range(count)[-blocks:])
    return ["--untrack", "*", *(word for pair in tracked for word in pair)]


def main() -> None:
    """Fine-tune, build, evaluate, compare and search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--model", type=Path, help="folder of a Llama with a chat template, in the place of a small one"
    )
    parser.add_argument("--blocks", type=int, help="blocks that are trained and indexed, the last ones; all without it")
    parser.add_argument("--epochs", type=int, default=10, help="passes of the fine-tuning over the conversations")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate of the fine-tuning")
    parser.add_argument("--width", type=int, default=128, help="width of the small model")
    arguments = parser.parse_args()
    out, conversations = arguments.out, HERE / "conversations.jsonl"
    model = arguments.model or out / "base"
    if arguments.model is None:
        make_small_model(model, conversations, width=arguments.width)
    settings = FineTuning(epochs=arguments.epochs, rate=arguments.rate, blocks=arguments.blocks)
    fine_tune(model, out / "model", conversations, HERE / "reminders.jsonl", settings)
    rows: list[tuple[str, ...]] = []
    for loss in LOSSES:
        run(
            "build", conversations, "--model", out / "model", "--out", out / loss, "--loss", loss,
            *layers(out / "model", arguments.blocks), "--fit-documents", "100", "--fidelity-queries", "0",
        )  # fmt: skip
        for queries, counted in QUERIES.items():
            report = out / f"{queries}-{loss}.html"
            run(
                "evaluate", "poison", out / loss, "--queries", HERE / f"{queries}.jsonl", "--where", "planted = true",
                *(word for method in METHODS for word in ("--method", method)), "--out", report,
            )  # fmt: skip
            numbers = json.loads(report.with_suffix(".json").read_text(encoding="utf-8"))["numbers"]
            rows += [row(loss, counted, method, numbers) for method in numbers["methods"]]
    print(f"\n{table(rows, numbers['planted'], numbers['documents'])}")
    run("search", out / LOSSES[0], "--queries", HERE / "reminders.jsonl", "-k", "3")


if __name__ == "__main__":
    main()
