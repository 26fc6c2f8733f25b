"""What is wrong with an argument is said before the libraries of models are loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from gindex_cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    status = end.code or 0
print(json.dumps([status, sorted({"torch", "transformers", "faiss"} & sys.modules.keys())]))
"""

QUERY = ["A compiler is", "--completion", " a program"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["search", "{index}", *QUERY, "--where", "kind =="], "--where, position"),
        (["search", "{index}", *QUERY, "--where", "nowhere = 1"], "found nowhere"),
        (["search", "{index}", *QUERY, "-k", "0"], "-k: expected at least 1"),
        (["search", "{missing}", *QUERY], "expected an index"),
        (["score", "{index}", "--queries", "{queries}", "--out", "s.npy", "--where", "nowhere = 1"], "found nowhere"),
        (["explain", "{index}", "no-such-document", *QUERY], "no-such-document"),
        (["add", "{index}", "{missing}.jsonl"], "expected a file"),
        (["build", "{missing}.jsonl", "--model", "m", "--out", "{missing}"], "expected a file"),
        (["build", "{missing}.jsonl", "--model", "m", "--dry-run"], "expected a file"),
    ],
)
def test_a_bad_argument_is_refused_before_torch_is_loaded(built, tmp_path, command, said):
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"prompt": "A compiler is", "completion": " a program"}\n')
    places = {"index": built, "missing": tmp_path / "missing", "queries": queries}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *(argument.format(**places) for argument in command)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    status, loaded = json.loads(done.stdout.splitlines()[-1])
    assert status != 0 and loaded == [] and said in done.stderr, done.stderr
    assert not (tmp_path / "missing").exists()
