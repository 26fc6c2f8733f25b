r"""The same trainings, every method: LDS, loss rise and time of gindex and of other packages on one fine-tuning.

    python tools/data/make_truth.py unseen .cache/truth/unseen
    python tools/benchmarks/methods.py case .cache/truth/unseen
    python tools/benchmarks/methods.py own .cache/truth/unseen
    python tools/benchmarks/methods.py peer .cache/truth/unseen bergson-ekfac ENV/bin/python by_bergson \
        ekfac CASE WORK OUT
    python tools/benchmarks/methods.py table .cache/truth/unseen

`case` writes what all score: the tuned model, documents and queries as token ids with labels, checkpoints of its
training. `own` scores by gindex, `refined` by its conjugate gradients. `peer` runs a script of tools/benchmarks/peers
in the environment of ENV, where the other package is installed (gindex isn't needed there), and keeps the scores [Q, N]
that it writes. `table` trains on random halves and without the first documents of each method, or takes the trainings
that FOLDER/lds has, and prints.

Everything lies in FOLDER/methods. Times are processor seconds, of fitting and scoring, divided by the tokens of the
documents; queries are in them.

Axes: Q queries, N documents, M subsets.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from gindex_cli.progress import terminal_progress
from truth_language import Methods

from gindex.corpus.objectives import Objective
from gindex.lab.evaluations.config import LdsConfig
from gindex.lab.evaluations.experiments import FINE_TUNING, load_experiment
from gindex.lab.evaluations.fine_tuning import FineTuning
from gindex.lab.evaluations.lds import MethodLds, ceiling, compare, draw_subsets
from gindex.lab.evaluations.training import Scores
from gindex.lab.evaluations.work_folder import WorkFolder
from gindex.lab.statistics import interval, mean_interval

IGNORED = -100
"""The label of a token that doesn't count, as transformers has it."""

REFERENCE = "gindex-exact"
"""The method that shares are of."""


def labelled(objective: Objective, text: str) -> dict[str, object]:
    """Return a document or query as other packages read it: token ids, labels, their number, and the text.

    Args:
        objective: Of one text, all of whose counted tokens weigh 1.
        text: What a package reads that looks at words.

    Raises:
        ValueError: It is another kind of objective.
    """
    (tokens,) = objective.texts
    if set(np.unique(tokens.weights)) - {0.0, 1.0} or tokens.labels is not None or tokens.second is not None:
        raise ValueError(f"expected one text whose tokens count fully or not at all, found {objective}")
    labels = np.where(tokens.counted, tokens.ids.astype(np.int64), IGNORED)
    return {"input_ids": tokens.ids.tolist(), "labels": labels.tolist(), "length": len(tokens), "text": text}


def write_case(function: FineTuning, folder: Path) -> None:
    """Write documents, queries, checkpoints with the optimizer's state, and how it was trained."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    queries = [tokens.objective for tokens in function.query_tokens]
    texts = {"documents": function.texts, "queries": [query.text for query in function.queries]}
    for kind, objectives in (("documents", function.objectives), ("queries", queries)):
        rows = [labelled(*pair) for pair in zip(objectives, texts[kind], strict=True)]
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reached: list[int] = []

    def keep(step: int, optimizer: torch.optim.Optimizer) -> None:
        reached.append(step)
        out = folder / "checkpoints" / f"checkpoint-{step}"
        if not out.is_dir():
            function.save(out)
            torch.save(optimizer.state_dict(), out / "optimizer.pt")

    function.train(np.arange(function.documents), 0, keep)
    steps, rate = reached[0], function.recipe.rate
    rising = rate * (steps + 1) / (2 * steps)  # the mean of an epoch that the rate rises through
    counted = sum(int(text.counted.sum()) for objective in function.objectives for text in objective.texts)
    training = {
        "rate": rate,
        "rates": [rising, *[rate] * (len(reached) - 1)],
        "steps": steps,
        "checkpoints": reached,
        "documents_a_step": round(function.documents / steps),
        "tokens_a_document": counted / function.documents,
        "tokens": sum(len(text) for objective in function.objectives for text in objective.texts),
    }
    (folder / "training.json").write_text(json.dumps(training), encoding="utf-8")
    for name, target in (("model", f"checkpoints/checkpoint-{reached[-1]}"), ("start", "../../model")):
        if not (folder / name).exists():
            (folder / name).symlink_to(target, target_is_directory=True)


def processor_seconds(act: Callable[[], object], who: int) -> tuple[object, float]:
    """Return what a function returns, and the processor seconds that this process or its children took for it."""
    before = resource.getrusage(who)
    found = act()
    after = resource.getrusage(who)
    return found, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def keep_scores(folder: Path, name: str, score: Callable[[], Scores], who: int, earlier: float = 0.0) -> None:
    """Keep a method's scores with the processor seconds that they took, and those of what went before."""
    scores_QN, seconds = processor_seconds(score, who)
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    np.save(folder / "scores" / f"{name}.npy", np.asarray(scores_QN, np.float64))
    (folder / "scores" / f"{name}.json").write_text(json.dumps({"seconds": earlier + seconds}), encoding="utf-8")
    print(f"{name}: {earlier + seconds:.1f} s of processor time, scores {np.shape(scores_QN)}", flush=True)


def score_refined(arguments: argparse.Namespace, folder: Path) -> None:
    """Score by gindex's conjugate gradients; the fit is in their time, as it is in that of the others."""
    methods = Methods(load_experiment(f"{FINE_TUNING}{arguments.folder}"))
    _, fit = processor_seconds(lambda: methods.fitted("ekfac"), resource.RUSAGE_SELF)
    for iterations in arguments.iterations:
        name = f"gindex-cg-{iterations}-{arguments.documents}-{arguments.damping:g}"
        refined = partial(methods.refined, arguments.damping, iterations, arguments.documents, arguments.queries)
        keep_scores(folder, name, refined, resource.RUSAGE_SELF, fit)


def score_own(function: FineTuning, folder: Path, wanted: Sequence[str]) -> None:
    """Score by gindex: the stored vectors, the funnel, exact influence, BM25; the build is in the time of each."""
    shutil.rmtree(function.folder / "index", ignore_errors=True)
    _, build = processor_seconds(lambda: function.index(terminal_progress()), resource.RUSAGE_SELF)
    for name, method in function.methods().items():
        if not wanted or name in wanted:
            keep_scores(folder, f"gindex-{name}", lambda m=method: np.asarray(m()), resource.RUSAGE_SELF, build)


def score_peer(folder: Path, name: str, python: str, command: Sequence[str]) -> None:
    """Score by another package, in its own environment."""
    script, *options = command
    path = Path(__file__).parent / "peers" / f"{script}.py"
    out = folder / "scores" / f"{name}.npy"
    out.parent.mkdir(parents=True, exist_ok=True)

    def score() -> Scores:
        environment = {"CASE": str(folder / "case"), "WORK": str(folder / "work" / script), "OUT": str(out)}
        given = [environment.get(option, option) for option in options]
        subprocess.run([python, str(path), *given], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        return np.load(out)

    keep_scores(folder, name, score, resource.RUSAGE_CHILDREN)


def loss_rise(
    work: WorkFolder, scores: Mapping[str, Scores], queries: int, removed: Sequence[int]
) -> dict[str, dict[int, np.ndarray]]:
    """Train without the first documents of each method for each of the first queries; return the rise of the loss.

    Returns:
        By method and number of documents left out, the rise of each query's own loss [Q], in nats.
    """
    everything = np.arange(work.experiment.documents)
    full_Q = work.losses([everything], [0], terminal_progress())[0]
    cuts = [
        (name, count, query, np.setdiff1d(everything, np.argsort(-scores_QN[query], kind="stable")[:count]))
        for name, scores_QN in scores.items()
        for count in removed
        for query in range(min(queries, len(scores_QN)))
    ]
    losses_CQ = work.losses([cut[-1] for cut in cuts], [0] * len(cuts), terminal_progress())
    found: dict[str, dict[int, np.ndarray]] = {}
    for (name, count, query, _), losses_Q in zip(cuts, losses_CQ, strict=True):
        rises = found.setdefault(name, {}).setdefault(count, np.zeros(0))
        found[name][count] = np.append(rises, losses_Q[query] - full_Q[query])
    return found


def table(arguments: argparse.Namespace, folder: Path) -> None:
    """Print a row for every method whose scores are kept."""
    config = LdsConfig(subsets=arguments.subsets, repeats=arguments.repeats)
    experiment = load_experiment(f"{FINE_TUNING}{arguments.folder}")
    work = WorkFolder(experiment, arguments.folder / "lds")
    subsets = draw_subsets(experiment.documents, config)
    seeds = [config.seed + repeat for repeat in range(config.repeats) for _ in subsets]
    losses_KQ = work.losses(subsets * config.repeats, seeds, terminal_progress())
    outcomes_RQM = -losses_KQ.reshape(config.repeats, len(subsets), -1).swapaxes(1, 2)
    if config.repeats > 1:
        print(f"noise between trainings would allow {ceiling(outcomes_RQM):.3f}", file=sys.stderr)
    scores = {path.stem: np.load(path) for path in sorted((folder / "scores").glob("*.npy"))}
    measured = {name: compare(found, subsets, outcomes_RQM.mean(0)[: len(found)]) for name, found in scores.items()}
    removed = [max(1, round(share * experiment.documents)) for share in arguments.removed]
    tried = {name: found for name, found in scores.items() if name in (arguments.remove or scores)}
    rises = loss_rise(work, tried, arguments.asked, removed) if removed else {}
    tokens = json.loads((folder / "case" / "training.json").read_text())["tokens"]
    heads = [f"rise without the first {count}" for count in removed]
    print("|", " | ".join(["method", "queries", "LDS", "of gindex exact", *heads, "ms a token"]), "|")
    print("|---" * (5 + len(removed)) + "|")
    for name, method in sorted(measured.items(), key=lambda item: -item[1].lds.mean):
        same = compare(scores[REFERENCE][: len(scores[name])], subsets, outcomes_RQM.mean(0)[: len(scores[name])])
        seconds = json.loads((folder / "scores" / f"{name}.json").read_text())["seconds"]
        cells = [name, str(len(scores[name])), spread(method), share(method, same)]
        cells += [rise_cell(rises[name][count]) if name in rises else "" for count in removed]
        print("|", " | ".join([*cells, f"{1000 * seconds / tokens:.2f}"]), "|")


def spread(method: MethodLds) -> str:
    """Return an LDS with its interval."""
    return f"{method.lds.mean:.3f} [{method.lds.low:.3f}, {method.lds.high:.3f}]"


def share(method: MethodLds, reference: MethodLds) -> str:
    """Return a method's LDS as a share of another's on the same queries and subsets, with its interval."""
    ratio = interval(method.lds.mean / reference.lds.mean, method.samples / reference.samples)
    return f"{ratio.mean:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def rise_cell(rises_Q: np.ndarray) -> str:
    """Return the mean rise with its interval over queries."""
    mean = mean_interval(rises_Q)
    return f"{mean.mean:+.2f} [{mean.low:+.2f}, {mean.high:+.2f}]"


def main() -> None:
    """Parse and act."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("case", "own", "refined", "peer", "table"):
        commands.add_parser(name).add_argument("folder", type=Path)
    commands.choices["own"].add_argument("--method", action="append", default=[], help="one of them; all")
    refined = commands.choices["refined"]
    refined.add_argument("--iterations", type=int, nargs="+", default=[2], help="of conjugate gradients")
    refined.add_argument("--documents", type=int, default=60, help="whose Gauss-Newton matrix is inverted")
    refined.add_argument("--damping", type=float, default=0.1, help="times each layer's mean eigenvalue")
    refined.add_argument("--queries", type=int, default=40, help="to refine, the first ones")
    peer, rows = commands.choices["peer"], commands.choices["table"]
    peer.add_argument("name", help="what the row is called")
    peer.add_argument("python", help="interpreter of the environment that has the package")
    peer.add_argument("script", nargs=argparse.REMAINDER, help="script and its options; CASE, WORK, OUT are filled in")
    rows.add_argument("--subsets", type=int, default=80)
    rows.add_argument("--repeats", type=int, default=1)
    rows.add_argument("--asked", type=int, default=8, help="queries that documents are left out for")
    rows.add_argument("--removed", type=float, nargs="*", default=[0.01, 0.05], help="shares of documents to leave out")
    rows.add_argument("--remove", action="append", help="a method to leave documents out by; all")
    arguments = parser.parse_args()
    folder, start = arguments.folder / "methods", time.monotonic()
    if arguments.command == "case":
        write_case(FineTuning(arguments.folder), folder / "case")
    elif arguments.command == "own":
        score_own(FineTuning(arguments.folder), folder, arguments.method)
    elif arguments.command == "refined":
        score_refined(arguments, folder)
    elif arguments.command == "peer":
        score_peer(folder.resolve(), arguments.name, arguments.python, arguments.script)
    else:
        table(arguments, folder)
    print(f"{time.monotonic() - start:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    main()
