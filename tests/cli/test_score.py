"""`gindex score` and `gindex search --group-by`: what they write and print, killed and resumed, and how they fail."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest

from gindex import GradientIndex


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.jsonl"
    lines = [{"id": "a", "prompt": "the stack", "completion": " heap race"}, {"prompt": "the compiler bug"}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_scores_are_written_and_told(run, sourced, queries, tmp_path):
    result = run("score", sourced, "--queries", queries, "--out", tmp_path / "s.jsonl", "--where", "source = 'web'")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{tmp_path / 's.jsonl'}: scores of 50 documents for 2 queries, ")
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert len(lines) == 50 and all(list(line["scores"]) == ["a", "1"] for line in lines)


def test_the_summary_as_json(run, sourced, queries, tmp_path):
    out = tmp_path / "s.npy"
    result = run("score", sourced, "--queries", queries, "--out", out, "--exact", "--hits", "part", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert list(told) == ["path", "queries", "count", "hits", "exact", "bytes", "resumed"]
    assert np.load(out).shape == (2, told["count"]) and told["bytes"] == out.stat().st_size
    assert (told["hits"], told["exact"], told["resumed"]) == ("part", True, 0.0)


def test_a_killed_command_goes_on(gindex_command, sourced, queries, tmp_path):
    """Killed as soon as its folder is there, and given again: the file is that of one run."""
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(out):
        return [gindex_command, "score", sourced, "--queries", queries, "--out", out, "--exact"]

    subprocess.run(command(whole), check=True, capture_output=True, env=environment)
    running = subprocess.Popen(command(cut), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    while running.poll() is None and not cut.with_name("cut.parquet.unfinished").exists():
        time.sleep(0.001)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert running.returncode == -signal.SIGKILL and not cut.exists()
    subprocess.run(command(cut), check=True, capture_output=True, env=environment)
    assert cut.read_bytes() == whole.read_bytes() and not cut.with_name("cut.parquet.unfinished").exists()


def test_groups_as_a_table(run, sourced):
    result = run("search", sourced, "the stack", "-k", 1, "--group-by", "source", "--groups", 3)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    at = lines.index(f"scores of {len(GradientIndex.open(sourced).ids())} documents by source")
    assert lines[at + 1].split() == [
        "source",
        "documents",
        "sum",
        "of",
        "scores",
        "95%",
        "interval",
        "mean",
        "95%",
        "interval",
    ]
    assert len({len(line) for line in lines[at + 1 : at + 5]}) == 1
    assert lines[at + 5].startswith("     1 other value: ")


def test_groups_as_json(run, sourced):
    result = run("search", sourced, "the stack", "-k", 1, "--group-by", "tags", "--json")
    groups = json.loads(result.stdout)["groups"]
    assert groups["field"] == "tags" and {group["value"] for group in groups["groups"]} == {None, "a", "b", '["c"]'}


def test_refusals(fails, run, sourced, built, queries, tmp_path):
    line = fails(6, "search", sourced, "the stack", "--group-by", "document")
    assert line.endswith("found 'document'; --hits document says what a hit is")
    line = fails(2, "search", sourced, "the stack", "--group-score", "sum")
    assert line == "Error: --group-score is called --document-score now."
    line = fails(2, "score", sourced, "--queries", queries, "--out", tmp_path / "s.csv")
    assert "--out: expected a file that ends with .parquet, .npy, .jsonl, found s.csv" in line
    line = fails(
        2, "score", sourced, "--queries", queries, "--out", tmp_path / "s.npy", "--exact", "--normalise", "unit"
    )
    assert "--normalise: expected none, relatif or length beside --exact" in line
    line = fails(6, "score", sourced, "--queries", tmp_path / "none.jsonl", "--out", tmp_path / "s.npy")
    assert "expected a file of queries" in line
