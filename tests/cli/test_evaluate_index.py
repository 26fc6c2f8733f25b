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
    assert "queries.jsonl:1: expected an object with prompt" in message and "found the field documents" in message


def test_queries_of_evaluations_may_be_conversations(run, chat_built, tmp_path):
    """The answer of a conversation is asked about, as a search with it would."""
    messages = [{"role": "user", "content": "the compiler"}, {"role": "assistant", "content": "stack heap"}]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": messages, "documents": ["d3"]}))
    common = [chat_built, "--device", "cpu", "--method", "index", "--json"]
    (ranks,) = json.loads(run("evaluate", "recall", *common, "--queries", path).stdout)["methods"]["index"]["ranks"]
    (tmp_path / "chat.json").write_text(json.dumps(messages))
    found = run(
        "search", chat_built, "--messages", tmp_path / "chat.json", "--hits", "document", "--document-score", "sum",
        "-k", 150, "--scan", "--json",
    )  # fmt: skip
    (rank,) = [hit["rank"] for hit in json.loads(found.stdout)["hits"] if hit["document_id"] == "d3"]
    assert ranks == [rank]
    path.write_text(json.dumps({"messages": messages}))
    poison = run("evaluate", "poison", *common, "--queries", path, "--where", "number = 3")
    assert json.loads(poison.stdout)["methods"]["index"]["first"] == rank
