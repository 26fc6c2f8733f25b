"""Conversations, contrasts, spans and sets on the command line: the answers of the library, shown with what counts."""

import json

import pytest
from click.testing import CliRunner
from gindex_cli.commands import gindex

from gindex import Query

QUERY = 6
TALK = [{"role": "user", "content": "the compiler race"}, {"role": "assistant", "content": "a bug the stack"}]


@pytest.fixture
def conversation(tmp_path):
    path = tmp_path / "talk.json"
    path.write_text(json.dumps({"messages": TALK, "tools": None}))
    return path


def hits(result) -> list[tuple[str, float]]:
    assert result.exit_code == 0, result.output
    return [(hit["document_id"], hit["score"]) for hit in json.loads(result.stdout)["hits"]]


def expected(chat_index, query, **settings) -> list[tuple[str, float]]:
    return [(hit.document_id, hit.score) for hit in chat_index.search(query, **settings).hits]


OTHER = [TALK[0], {"role": "assistant", "content": "page"}]
RACE = {"prompt": "the race", "completion": " bug stack"}


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        (["--messages", "{talk}"], Query(messages=TALK)),
        (["--messages", "{talk}", "--loss", "all"], Query(messages=TALK, loss="all")),
        (["--messages", "{talk}", "--turn", 2, "--span", "2:5"], Query(messages=TALK, turn=2, span=(2, 5))),
        (["--messages", "{talk}", "--contrast", "a cache"], Query(messages=TALK, contrast="a cache")),
        (["--messages", "{talk}", "--contrast", "@{other}"], Query(messages=TALK, contrast=OTHER)),
        (["the race", "--completion", " bug stack", "--contrast", "@disk"], Query(**RACE, contrast="@disk")),
        (["the race", "--completion", " bug stack", "--span", "4:7"], Query(**RACE, span=(4, 7))),
    ],
)
def test_one_query(run, chat_built, chat_index, conversation, tmp_path, arguments, query):
    other = tmp_path / "other.json"
    other.write_text(json.dumps(OTHER))
    places = {"{talk}": str(conversation), "@{other}": f"@{other}"}
    arguments = [places.get(each, each) for each in arguments]
    found = run("search", chat_built, *arguments, "-k", 3, "--json", "--device", "cpu")
    assert hits(found) == expected(chat_index, query, k=3)
    shown = json.loads(found.stdout)["query"]
    assert (
        Query(**{name: value for name, value in shown.items() if name not in ("tokens", "span")}, span=query.span)
        == query
    )
    explained = run("explain", chat_built, "d3", *arguments, "--json", "--device", "cpu")
    assert json.loads(explained.stdout)["influence"] == pytest.approx(chat_index.explain("d3", query).influence)


def test_a_conversation_from_standard_input(chat_built, chat_index):
    arguments = ["search", str(chat_built), "--messages", "-", "-k", "3", "--json", "--device", "cpu"]
    found = CliRunner().invoke(gindex, arguments, input=json.dumps(TALK))
    assert hits(found) == expected(chat_index, Query(messages=TALK), k=3)


def test_a_file_of_queries_of_every_form(run, chat_built, chat_index, tmp_path):
    records = [
        {"id": "a", "prompt": "the race", "completion": " bug stack", "span": "4:7", "weight": 2},
        {"id": "b", "prompt": "the race", "completion": " bug", "contrast": " disk"},
        {"id": "c", "conversations": [{"from": "human", "value": "the race"}, {"from": "gpt", "value": "a bug"}]},
        {"id": "d", "prompt": TALK[:1], "completion": TALK[1:]},
        {"id": "e", "input_ids": [80, 90, 100], "loss_mask": [0, 0, 1], "completion": None},
        {"id": "f", "prompt": TALK[:1], "chosen": TALK[1:], "rejected": [{"role": "assistant", "content": "page"}]},
        {"id": "g", "prompt": "the race", "chosen": " bug", "rejected": " disk", "beta": 0.5},
        {"id": "h", "queries": [{"prompt": "the race"}, {"messages": TALK}], "aggregate": "sum"},
        {"id": "bad", "messages": TALK, "prompt": "the race"},
    ]
    path = tmp_path / "queries.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = run("search", chat_built, "--queries", path, "-k", 2, "--json", "--device", "cpu")
    assert found.exit_code == QUERY
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    assert [answer["query"]["id"] for answer in answers] == [record["id"] for record in records]
    queries = [
        Query(prompt="the race", completion=" bug stack", span=(4, 7), weight=2),
        Query(prompt="the race", completion=" bug", contrast=" disk"),
        Query(messages=[{"role": "user", "content": "the race"}, {"role": "assistant", "content": "a bug"}]),
        Query(messages=TALK),
        Query(input_ids=[80, 90, 100], loss_weights=[0, 0, 1]),
        Query(chosen=TALK, rejected=[TALK[0], {"role": "assistant", "content": "page"}]),
        Query(prompt="the race", chosen=" bug", rejected=" disk", beta=0.5),
        Query(queries=[Query(prompt="the race"), Query(messages=TALK)], aggregate="sum"),
    ]
    for answer, query in zip(answers, queries, strict=False):
        scores = [hit["score"] for hit in answer["hits"]]
        assert scores == pytest.approx([score for _, score in expected(chat_index, query, k=2)], rel=1e-4)
    assert "the fields of one form" in answers[-1]["error"]["detail"]
    text = run("search", chat_built, "--queries", path, "-k", 1, "--device", "cpu").stdout
    for shown in ("[b] the race bug\nrather than:  disk", "user: the compiler race\nassistant: a bug", "[e] 3 tokens",
                  "[g] the race bug\nover:  disk", "[h] sum of 2 queries\nthe race"):  # fmt: skip
        assert shown in text


def test_a_set_is_one_query(run, chat_built, chat_index, tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text(
        '{"prompt": "the race", "completion": " bug", "weight": 3}\n{"prompt": "a", "completion": " lock"}\n'
    )
    members = [Query(prompt="the race", completion=" bug", weight=3), Query(prompt="a", completion=" lock")]
    for aggregate in ("mean", "sum"):
        found = run(
            "search", chat_built, "--queries", path, "--aggregate", aggregate, "-k", 3, "--json", "--device", "cpu"
        )
        assert hits(found) == expected(chat_index, Query(queries=members, aggregate=aggregate), k=3)
        assert json.loads(found.stdout)["query"]["aggregate"] == aggregate


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a b", "--contrast", " c"], QUERY, "expected a completion beside the contrast"),
        (["a b", "--span", "0:1"], QUERY, "expected a completion beside the span"),
        (["a b", "--aggregate", "sum"], 2, "--aggregate: expected --queries beside it"),
        (["a b", "--completion", " c", "--turn", 2], 2, "--turn: expected --messages beside it"),
        (["--messages", "{talk}", "--completion", "x"], 2, "--completion goes with PROMPT"),
        (["a b", "--completion", " c", "--span", "one"], QUERY, "expected START:END"),
        (["a b", "--completion", " c", "--span", "2:1"], QUERY, "expected characters within 0:2"),
        (["a b", "--completion", " c", "--contrast", " c"], QUERY, "expected another text"),
        (["--messages", "{none}"], QUERY, "expected a file of messages"),
        (["--messages", "{bad}"], QUERY, "expected a list of messages, or an object"),
        (["--messages", "{talk}", "--turn", 1], QUERY, "the number of a turn of the assistant, from 1: 2"),
    ],
)
def test_bad_input(run, chat_built, conversation, tmp_path, arguments, code, words):
    (tmp_path / "bad.json").write_text('{"tools": []}')
    places = {"{talk}": conversation, "{none}": tmp_path / "none.json", "{bad}": tmp_path / "bad.json"}
    found = run("search", chat_built, *[places.get(each, each) for each in arguments], "--device", "cpu")
    assert found.exit_code == code and words in found.stderr


def test_a_model_without_a_template(run, built, conversation):
    found = run("search", built, "--messages", conversation, "--device", "cpu")
    assert found.exit_code == QUERY and "expected a chat template" in found.stderr
