"""What the commands print where all is well."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from gindex_cli.command import GindexCommand
from gindex_cli.commands import gindex

from gindex.build.plan import BuildPlan

PROMPT, COMPLETION = "the compiler race", " bug the stack"


@pytest.fixture(scope="module")
def queries(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("queries") / "queries.jsonl"
    records = [
        {"id": "first", "prompt": PROMPT, "completion": COMPLETION},
        {"id": "second", "prompt": "the heap\u2028the stack"},  # a line separator that ends no line of JSON
        {"prompt": "a cache", "completion": None},
    ]
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("\ufeff" + text.replace("\n", "\n\n", 1), encoding="utf-8")
    return path


def test_build_prints_the_plan_then_what_it_made(run, tmp_path, corpus_file, options):
    result = run("build", corpus_file, "--out", tmp_path / "index", *options)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [
        "corpus", "fit", "layers", "time", "memory", "disk", f"{tmp_path / 'index'}:",
    ]  # fmt: skip
    assert "150 documents indexed" in lines[-1]
    again = run("build", corpus_file, "--out", tmp_path / "index", *options)
    assert again.exit_code == 0 and again.stdout.splitlines() == lines[-1:]


def test_a_rank_fraction_of_one_keeps_all_of_both_eigenbases(run, tmp_path, corpus_file, options):
    given = list(options)
    at = given.index("--rank-fraction")
    given[at : at + 2] = ["--rank-fraction", "1"]
    assert run("build", corpus_file, "--out", tmp_path, *given).exit_code == 0
    layers = json.loads(next(tmp_path.glob("manifests/*.json")).read_text())["layers"]
    assert layers and all(
        (la["activation_rank"], la["gradient_rank"]) == (la["inputs"], la["outputs"]) for la in layers
    )


def test_dry_run_prints_every_item_and_leaves_nothing(run, tmp_path, corpus_file, options, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = run("build", corpus_file, *options, "--out", "index", "--dry-run")
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == []
    for expected in (
        "150 documents, ", " parts, ", " tokens", "20 documents, ",
        "14 tracked, 52.9% of 10,352 parameters, 98.6% of the body",
        "model.embed_tokens.weight: an embedding, the output head's weight too, not of the body: --layers everything "
        "or --track model.embed_tokens takes it (1 weight, outside the body)",
        "model.layers.*.input_layernorm.weight, model.layers.*.post_attention_layernorm.weight, model.norm.weight: "
        "of LlamaRMSNorm, not a linear layer: --layers everything takes it (5 weights, ",
        "time       about ", "fit covariances ", "eigenbases ", "fit eigenvalues ", "vectors ",
        "memory     about ", "disk       about ", "factors ", "search index ", "documents ",
    ):  # fmt: skip
        assert expected in result.stdout


def test_dry_run_tells_which_sides_have_no_basis_of_one_matrix(run, corpus_file, options, monkeypatch):
    assert "sides: " not in run("build", corpus_file, *options, "--dry-run").stdout
    monkeypatch.setattr("gindex.model.sides.WIDEST_MATRIX", 39)  # the model's two MLPs have 40 features
    monkeypatch.setattr("gindex.model.sides.WIDEST_BLOCK", 15)
    plan = run("build", corpus_file, *options, "--dry-run", "--track", "model.embed_tokens")
    assert "6 of 40 in blocks of 14" in plan.stdout
    assert "1 of 300 in unit vectors" in plan.stdout


def test_dry_run_as_json_names_every_weight(run, corpus_file, options):
    result = run("build", corpus_file, *options, "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert plan.keys() == BuildPlan.__dataclass_fields__.keys()
    assert sum(weight["parameters"] for weight in plan["untracked"]) == plan["parameters"] - plan["tracked_parameters"]
    assert all(weight["name"] and weight["reason"] for weight in plan["untracked"])


def test_search_prints_rank_score_id_part_and_text(run, built):
    result = run("search", built, PROMPT, "--completion", COMPLETION, "-k", 3)
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == PROMPT + COMPLETION
    hits = [line for line in lines if "score" in line]
    assert [line.split()[:2] for line in hits] == [[str(rank), "score"] for rank in (1, 2, 3)]
    assert all(", part " in line and " d" in line for line in hits)
    assert lines[-2].startswith("gradient ") and "re-rank" not in lines[-2]
    assert re.fullmatch(
        r"index fidelity: top 10 within 100 [01]\.\d\d, .* against exact \(8 queries, \d+ parts\)", lines[-1]
    )


def assert_result(record: dict, k: int, exact: bool) -> None:
    """The shape of a record, no more and no less."""
    assert list(record) == ["query", "hits", *(["reranked", "certificate"] if exact else []), "coverage", "timing_ms"]
    assert list(record["query"]) == ["id", "prompt", "completion", "tokens"]
    assert list(record["timing_ms"]) == ["load", "gradient", "search", "rerank", "total"]
    assert all(isinstance(value, float) and value >= 0 for value in record["timing_ms"].values())
    assert [hit["rank"] for hit in record["hits"]] == list(range(1, k + 1))
    for hit in record["hits"]:
        assert list(hit) == ["rank", "document_id", "part", "score", "influence", "text", "metadata"]
        assert isinstance(hit["score"], float) and isinstance(hit["part"], int)
        assert isinstance(hit["influence"], float) if exact else hit["influence"] is None
        assert hit["metadata"].keys() == {"number"} and hit["text"]


@pytest.mark.parametrize("exact", [False, True])
def test_search_as_json(run, built, exact):
    flags = ["--exact", "--candidates", 20] if exact else []
    result = run("search", built, PROMPT, "--completion", COMPLETION, "-k", 4, "--json", *flags)
    (line,) = result.stdout.splitlines()
    record = json.loads(line)
    assert_result(record, 4, exact)
    assert {k: record["query"][k] for k in ("id", "prompt", "completion")} == {
        "id": None,
        "prompt": PROMPT,
        "completion": COMPLETION,
    }


def test_negative(run, built):
    scores = {}
    for flags in ((), ("--negative",), ("--negative", "--exact")):
        result = run("search", built, PROMPT, "-k", 4, "--json", *flags)
        key = "influence" if "--exact" in flags else "score"
        scores[flags] = [hit[key] for hit in json.loads(result.stdout)["hits"]]
    assert min(scores[()]) > 0 > max(scores["--negative",])
    for found in (scores["--negative",], scores["--negative", "--exact"]):
        assert found == sorted(found)


def test_queries_are_answered_in_order(run, built, queries):
    result = run("search", built, "--queries", queries, "-k", 2, "--json")
    records = [json.loads(line) for line in result.stdout.strip().split("\n")]
    assert [record["query"]["id"] for record in records] == ["first", "second", None]
    assert records[1]["query"]["prompt"] == "the heap\u2028the stack"
    for record in records:
        assert_result(record, 2, False)
    as_text = run("search", built, "--queries", queries, "-k", 2).stdout
    assert "[first] the compiler" in as_text and "[second] the heap" in as_text


def test_model_and_index_elsewhere(run, built, tmp_path, model_folder):
    moved = shutil.copytree(model_folder, tmp_path / "model")
    result = run("search", built, PROMPT, "--model", moved, "--device", "cpu", "-k", 1, "--json")
    assert_result(json.loads(result.stdout), 1, False)


def test_info(run, built):
    content = json.loads(run("info", built, "--json").stdout)
    for name in (
        "documents", "parts", "tokens", "dimension", "bits", "bytes_per_part", "model", "damping_scale", "ranks",
        "index_damping", "search_index", "format_version", "disk_bytes", "skipped_parts", "skipped",
    ):  # fmt: skip
        assert name in content
    assert content["documents"] == 150 and content["dimension"] == 512 and content["bits"] == 1
    # Codes, a float32 scale for each of two groups, a float32 of self-influence.
    assert content["bytes_per_part"] == 512 // 8 + 2 * 4 + 4
    assert set(content["disk_bytes"]) == {"documents", "factors", "vectors", "search"}
    text = run("info", built).stdout
    for name in ("corpus", "model", "vectors", "ranks", "damping", "search", "disk", "left out"):
        assert f"\n{name} " in text


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {path} in ten minutes"
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, ["gindex: interrupted; finished work is kept, run the same command again to go on"]),
        (signal.SIGTERM, -signal.SIGTERM, []),
    ],
)
def test_interrupted_build_says_so_and_goes_on(
    run, tmp_path, corpus_file, options, gindex_command, is_progress, number, code, said
):
    out = tmp_path / "index"
    arguments = ["build", corpus_file, "--out", out, *options, "--batch-tokens", 16]
    process = subprocess.Popen(
        [gindex_command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        # A shell's background jobs ignore the signal, and so would theirs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(out / "volumes/00000/segments/00000.json", process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == code, errors
    assert [line for line in errors.splitlines() if not is_progress(line)] == said
    kept = (out / "volumes/00000/segments/00000.json").stat().st_mtime_ns
    unfinished = run("search", out, PROMPT)
    assert unfinished.exit_code == 8 and "run the same gindex build again" in unfinished.stderr
    assert run(*arguments).exit_code == 0
    assert (out / "volumes/00000/segments/00000.json").stat().st_mtime_ns == kept
    assert run("search", out, PROMPT, "-k", 1).exit_code == 0


@pytest.mark.parametrize(("said", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")], ids=str)
def test_threads_of_commands_sleep_while_they_wait(built, gindex_command, said, expected):
    """As every OpenMP that a command loads prints, torch's and FAISS's; unless the environment says otherwise."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    process = subprocess.run(
        [gindex_command, "search", built, PROMPT, "-k", "1"],
        env=environment | said | {"OMP_DISPLAY_ENV": "TRUE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(re.findall(r"OMP_WAIT_POLICY = '(\w+)'", process.stderr)) == {expected}
    assert process.stderr.count("OMP_WAIT_POLICY") >= 2


def test_every_command_prepares_the_process():
    def leaves(group: click.Group) -> Iterator[click.Command]:
        for command in group.commands.values():
            yield from leaves(command) if isinstance(command, click.Group) else [command]

    assert all(isinstance(command, GindexCommand) for command in leaves(gindex))


def test_index_switches_the_second_level(run, built, tmp_path):
    folder = shutil.copytree(built, tmp_path / "index")
    on = run("reindex", folder, "--transform", "second-level", "--transform-mu", "0.3")
    assert on.exit_code == 0, on.output
    assert re.search(r"transform: second-level, mu 0.3, directions 512, share 1$", on.stdout, re.MULTILINE)
    assert re.search(r"transform +second-level, mu 0.3, directions 512", run("info", folder).stdout)
    assert json.loads(run("info", folder, "--json").stdout)["transform"]["settings"] == {"mu": 0.3}
    kept = json.loads(run("reindex", folder, "--type", "rabitq", "--json").stdout)
    assert kept["kind"] == "rabitq" and kept["transform"]["settings"] == {"mu": 0.3}
    assert "transform: none" in run("reindex", folder, "--transform", "none").stdout
    assert re.search(r"transform +none", run("info", folder).stdout)
