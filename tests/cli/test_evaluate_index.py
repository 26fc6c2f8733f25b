"""The evaluations that ask an index, from the command line."""

import json

import pytest
from report_files import read_report


@pytest.fixture
def queries_file(tmp_path):
    path = tmp_path / "queries.jsonl"
    lines = [{"prompt": "the compiler", "completion": " stack heap", "documents": ["d1", "d2"]}]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_commands_print_and_draw(run, built, tmp_path, queries_file):
    pytest.importorskip("matplotlib")
    plain = tmp_path / "plain.jsonl"
    plain.write_text(json.dumps({"prompt": "the compiler", "completion": " stack heap"}))
    (tmp_path / "pages").mkdir()
    for command, arguments in {
        "recall": ["--queries", queries_file],
        "poison": ["--queries", plain, "--where", "number < 5"],
        "tail-patch": ["--queries", queries_file, "-k", 2],
    }.items():
        picture = tmp_path / f"{command}.png"
        common = ["evaluate", command, built, *arguments, "--device", "cpu", "--plot", picture]
        result = run(*common)
        assert result.exit_code == 0, result.output
        assert "index" in result.stdout and picture.stat().st_size > 5000
        page = ["--out", tmp_path / "pages" / f"{command}.html"]
        methods = json.loads(run(*common, "--json", "--method", "index", *page).stdout)["methods"]
        record, _ = read_report(page[1], command)
        assert (
            list(methods) == ["index"] == list(record["numbers"]["methods"]) and record["numbers"]["methods"] == methods
        )


def test_queries_without_documents_are_refused(fails, built, tmp_path, queries_file):
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"prompt": "the"}')
    assert "plain.jsonl:1: expected a list of ids" in fails(6, "evaluate", "recall", built, "--queries", plain)
    message = fails(6, "search", built, "--queries", queries_file)
    assert "expected an object with prompt, " in message
