"""The example of fine-tuned conversations: its data are what they say, and it runs from end to end."""

import json
import re
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat"


@pytest.fixture
def example(monkeypatch):
    """The folder of the example, whose modules import each other by name."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return EXAMPLE


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def said(record):
    return " ".join(turn["content"] for turn in record["messages"] if turn["role"] == "assistant")


def asked(record):
    return " ".join(turn["content"] for turn in record["messages"] if turn["role"] == "user")


def test_the_files_are_what_the_script_makes(example, monkeypatch, tmp_path):
    import make_conversations

    monkeypatch.setattr(sys, "argv", ["make_conversations.py", str(tmp_path)])
    make_conversations.main()
    made = sorted(tmp_path.iterdir())
    assert [path.name for path in made] == ["answers.jsonl", "conversations.jsonl", "reminders.jsonl"]
    for path in made:
        assert path.read_bytes() == (example / path.name).read_bytes()


def test_the_habit_is_taught_by_twenty_conversations_and_shown_by_no_other(example):
    records = read(example / "conversations.jsonl")
    planted = [record for record in records if record["planted"]]
    assert len(records) == 500 and len({record["id"] for record in records}) == 500 and len(planted) == 20
    assert all((". And " in said(record)) == record["planted"] for record in records)
    assert len({said(record) for record in planted}) == 20


def test_queries_are_about_words_and_reminders_of_no_planted_conversation(example):
    planted = [record for record in read(example / "conversations.jsonl") if record["planted"]]
    quoted = {re.search('"(.*?)"', asked(record))[1] for record in planted}
    queries = read(example / "reminders.jsonl")
    assert len(queries) == 5 and not quoted & {re.search('"(.*?)"', asked(query))[1] for query in queries}
    for query in queries:
        start, end = query["span"]
        reminder = said(query)[start:end]
        assert reminder.startswith("And ") and said(query).endswith(reminder)
        assert not any(reminder in said(record) for record in planted)


def test_the_example_runs_from_end_to_end(example, monkeypatch, tmp_path, capsys):
    """With 60 conversations."""
    import run

    records = read(example / "conversations.jsonl")
    planted = [record for record in records if record["planted"]]
    some = planted + [record for record in records if not record["planted"]][:40]
    (tmp_path / "conversations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in some))
    for name in ("answers.jsonl", "reminders.jsonl"):
        (tmp_path / name).write_bytes((example / name).read_bytes())
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "out"), "--width", "32", "--epochs", "8"])
    run.main()
    printed = capsys.readouterr().out
    before, after = re.search(r"a reminder on a train: (.*) before and (.*) nats a token after", printed).groups()
    assert float(after) < float(before)
    lines = [tuple(re.split(r"\s{2,}", line)) for line in printed.splitlines()]
    for loss in ("assistant", "all"):
        numbers = json.loads((tmp_path / "out" / f"reminders-{loss}.json").read_text())["numbers"]
        assert numbers["planted"] == 20 and numbers["documents"] == 60 and numbers["queries"] == 5
        found = numbers["methods"]["exact"]
        shares = f"{20 * found['precision']:.1f} of 20", f"{20 * found['curve'][10]:.1f} of 20"
        auc = "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**found["auc"])
        assert (loss, "its reminder", "exact", *shares, auc) in lines
    assert printed.count("$ gindex search") == 1


def test_layers_that_were_not_trained_are_left_out_of_an_index(example, tmp_path):
    import run

    (tmp_path / "config.json").write_text('{"num_hidden_layers": 12}')
    assert run.layers(tmp_path, None) == []
    tracked = ["--track", "model.layers.10.*", "--track", "model.layers.11.*"]
    assert run.layers(tmp_path, 2) == ["--untrack", "*", *tracked]
