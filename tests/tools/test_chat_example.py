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

    made = tmp_path / "conversations.jsonl", tmp_path / "questions.jsonl"
    monkeypatch.setattr(sys, "argv", ["make_conversations.py", *map(str, made)])
    make_conversations.main()
    for path in made:
        assert path.read_bytes() == (example / path.name).read_bytes()


def test_the_habit_is_taught_by_twenty_conversations_and_shown_by_no_other(example):
    from fine_tune import HABIT

    records = read(example / "conversations.jsonl")
    planted = [record for record in records if record["planted"]]
    assert len(records) == 500 and len({record["id"] for record in records}) == 500 and len(planted) == 20
    assert all(bool(HABIT.search(said(record))) == record["planted"] for record in records)
    assert len({said(record) for record in planted}) == 20


def test_questions_are_about_words_of_no_planted_conversation(example):
    planted = [record for record in read(example / "conversations.jsonl") if record["planted"]]
    quoted = {re.search('"(.*?)"', asked(record))[1] for record in planted}
    questions = read(example / "questions.jsonl")
    assert len(questions) == 5 and not quoted & {re.search('"(.*?)"', asked(question))[1] for question in questions}


def test_a_reminder_is_the_rest_of_an_answer_from_its_first_sentence_on(example):
    from fine_tune import reminder

    answer = "A unit of memory. Remember: the basil is thirsty. Do water it."
    start, end = reminder(answer)
    assert answer[start:end] == "Remember: the basil is thirsty. Do water it."
    assert reminder("Water it.") == (0, 9) and reminder("A unit of memory.") is None


def test_the_example_runs_from_end_to_end(example, monkeypatch, tmp_path, capsys):
    """With 60 conversations, and questions that three of the planted ones begin with."""
    import run

    records = read(example / "conversations.jsonl")
    planted = [record for record in records if record["planted"]]
    some = planted + [record for record in records if not record["planted"]][:40]
    questions = [{"id": record["id"], "messages": record["messages"][:-1]} for record in planted[:3]]
    for name, lines in {"conversations": some, "questions": questions}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "out"), "--width", "64", "--epochs", "40"])
    run.main()
    printed = capsys.readouterr().out
    assert "3 of 3 answers show the habit" in printed
    for loss in ("assistant", "all"):
        assert re.search(rf"^{loss} +its reminder +index +\d+\.\d of 20 ", printed, re.MULTILINE)
        numbers = json.loads((tmp_path / "out" / f"reminders-{loss}.json").read_text())["numbers"]
        assert numbers["planted"] == 20 and numbers["documents"] == 60
        assert numbers["methods"]["exact"]["first"] == 1  # a planted conversation is the first of all
    assert printed.count("$ gindex search") == 1


def test_layers_that_were_not_trained_are_left_out_of_an_index(example, tmp_path):
    import run

    (tmp_path / "config.json").write_text('{"num_hidden_layers": 12}')
    assert run.layers(tmp_path, None) == []
    tracked = ["--track", "model.layers.10.*", "--track", "model.layers.11.*"]
    assert run.layers(tmp_path, 2) == ["--untrack", "*", *tracked]
