"""Documents of every form, built into one index: what counts, and influence against plain autograd."""

import json
import shutil
import sqlite3
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gindex import GradientIndex
from gindex.change.compact import compact
from gindex.change.verify import verify
from gindex.documents.table import DocumentTable
from gindex.errors import CorpusError, CorruptStoreError
from gindex.exact.fidelity import sample_parts
from gindex.progress import Silent
from gindex.queries.query import Query
from gindex.queries.tokens import tokenize_query
from gindex.store.layout import Layout
from gindex.vectors.influence import document_gradients

SYSTEM, ASK, SAID, AGAIN, MORE = "the kernel", "a bug the stack", "patch the heap", "the loop", "test a lock"
HEADER = "<|im_start|>assistant\n"


def turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


@dataclass(frozen=True)
class Expected:
    """Texts as runs of characters and whether they count, and what becomes of their log-likelihoods."""

    texts: list[list[tuple[str, bool]]]
    weight: float = 1.0
    reference: float | None = None


CHAT = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": ASK},
    {"role": "assistant", "content": SAID},
    {"role": "user", "content": AGAIN},
    {"role": "assistant", "content": MORE},
]
BEFORE = turn("system", SYSTEM) + turn("user", ASK) + HEADER
CHAT_TEXT = [
    (BEFORE, False),
    (SAID + "<|im_end|>", True),
    ("\n" + turn("user", AGAIN) + HEADER, False),
    (MORE + "<|im_end|>", True),
    ("\n", False),
]
LAST_TEXT = [(run, counts and run.startswith(MORE)) for run, counts in CHAT_TEXT]
RECORDS = {
    "text": ({"text": "the compiler parser token cache"}, Expected([[("the compiler parser token cache", True)]])),
    "completion": (
        {"prompt": "the race of a", "completion": " thread lock", "w": 2.5},
        Expected([[("the race of a", False), (" thread lock", True)]], weight=2.5),
    ),
    "chat": ({"messages": CHAT, "w": -0.5}, Expected([CHAT_TEXT], weight=-0.5)),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": SAID}]},
        Expected([[(turn("user", ASK) + HEADER, False), (SAID + "<|im_end|>", True), ("\n", False)]]),
    ),
    "answered": (
        {"prompt": CHAT[:4], "completion": CHAT[4:]},
        Expected([LAST_TEXT]),
    ),
    "pair": (
        {"prompt": "the page", "chosen": " file", "rejected": " disk race", "w": 3},
        Expected(
            [[("the page", False), (" file", True)], [("the page", False), (" disk race", True)]],
            weight=3,
            reference=0.0,
        ),
    ),
    "pair of turns": (
        {
            "chosen": [*CHAT[:2], {"role": "assistant", "content": SAID}],
            "rejected": [*CHAT[:2], {"role": "assistant", "content": MORE}],
            "ref_chosen_logp": -11.0,
            "ref_rejected_logp": -12.5,
        },
        Expected([[(BEFORE, False), (own + "<|im_end|>", True), ("\n", False)] for own in (SAID, MORE)], reference=1.5),
    ),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, chat_model):
    """A record of each form, and enough plain text to fit on."""
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    ids = tokenizer("the cache page file disk bug").input_ids
    prepared = {
        "labels": {"input_ids": ids, "labels": [-100, -100, *ids[2:4], -100, *ids[5:]]},
        "mask": {
            "input_ids": [*ids, 0, 0],
            "loss_mask": [*(n % 2 for n in range(len(ids))), 1, 1],
            "attention_mask": [*[1] * len(ids), 0, 0],
        },
        "weights": {"input_ids": ids, "loss_weights": [7.0, 0.0, -1.5, *[0.25] * (len(ids) - 3)]},
    }
    path = tmp_path_factory.mktemp("forms") / "forms.jsonl"
    words = ["the", "a", "compiler", "kernel", "stack", "heap", "lock", "thread", "race", "cache", "page", "file"]
    texts = [{"id": f"t{n}", "text": " ".join(np.random.default_rng(n).permutation(words)), "w": 1} for n in range(30)]
    records = [{"id": name, "w": 1, **record} for name, (record, _) in RECORDS.items()]
    records += [{"id": name, "w": 1, **record} for name, record in prepared.items()]
    path.write_text("".join(json.dumps(record) + "\n" for record in [*records, *texts]))
    return path


@pytest.fixture(scope="module")
def forms(tmp_path_factory, corpus, chat_model, make_config):
    folder = tmp_path_factory.mktemp("index") / "forms"
    config = make_config(name=str(chat_model), max_tokens=256, weight_field="w", beta=0.3, rank_fraction=1.0)
    GradientIndex.build([str(corpus)], folder, replace(config, fidelity=replace(config.fidelity, queries=0)))
    return GradientIndex.open(folder, device="cpu")


class Reference:
    """Losses by their definitions, in float64, one text at a time."""

    def __init__(self, chat_model):
        self.model = AutoModelForCausalLM.from_pretrained(chat_model, dtype=torch.float64)
        self.tokenizer = AutoTokenizer.from_pretrained(chat_model)

    def log_likelihood(self, ids, weights):
        log_p = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum((float(weights[t]) * log_p[t - 1, ids[t]] for t in range(1, len(ids))), start=0 * log_p.sum())

    def run_tokens(self, runs):
        ids, weights = [], []
        for text, counts in runs:
            own = self.tokenizer(text, add_special_tokens=False).input_ids
            ids += own
            weights += [float(counts)] * len(own)
        return ids, weights

    def loss(self, expected: Expected):
        log_p = [self.log_likelihood(*self.run_tokens(runs)) for runs in expected.texts]
        if expected.reference is None:
            return -expected.weight * log_p[0]
        margin = log_p[0] - log_p[1] - expected.reference
        return -expected.weight * torch.nn.functional.logsigmoid(0.3 * margin)

    def gradients(self, loss, layers):
        found = {}
        for layer in layers:
            module = self.model.get_submodule(layer.name)
            parameters = list(module.parameters())
            weight, *bias = torch.autograd.grad(loss, parameters, retain_graph=True)
            found[layer.name] = torch.cat([weight, *[b[:, None] for b in bias]], 1)
        return found


@pytest.fixture(scope="module")
def reference(chat_model) -> Reference:
    return Reference(chat_model)


def influence_of(forms, reference, losses):
    """Influence of documents, given their losses by definition, on a query."""
    layers = forms.manifest.layers
    tensors = {}
    for path in (forms.snapshot.layout.root / "factors").iterdir():
        tensors |= {name: tensor.double() for name, tensor in load_file(path).items()}
    ids = reference.tokenizer("the stack race").input_ids
    query = reference.gradients(-reference.log_likelihood(ids, [1.0] * len(ids)), layers)
    documents = [reference.gradients(loss, layers) for loss in losses]
    total = torch.zeros(len(losses), dtype=torch.float64)
    for layer in layers:
        Q_A, Q_S = tensors[f"activation.{layer.source}"].T, tensors[f"gradient.{layer.name}"].T
        Lambda = tensors[layer.name]
        V = (Q_S.T @ query[layer.name] @ Q_A) / (Lambda + 0.1 * Lambda.mean())
        X = Q_S @ V @ Q_A.T
        total += torch.stack([(X * G[layer.name]).sum() for G in documents])
    return total.numpy()


def parts_of(forms, name):
    everything = forms.snapshot.documents.parts(forms.snapshot.usable_parts)
    return np.array([part.ordinal for part in everything if part.document_id == name])


def exact(forms, names):
    query = tokenize_query(Query(prompt="the stack race"), forms.model.tracked.loaded)
    parts = np.concatenate([parts_of(forms, name) for name in names])
    assert len(parts) == len(names)
    return forms.reranker.influence([query], [parts], Silent())[0]


def test_the_influence_of_each_form_is_that_of_its_loss(forms, reference):
    names = list(RECORDS)
    expected = influence_of(forms, reference, [reference.loss(RECORDS[name][1]) for name in names])
    # Float32 against float64: sums of a few thousand terms; measured 2e-6.
    np.testing.assert_allclose(exact(forms, names), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_prepared_tokens_count_as_their_labels_masks_and_weights_say(forms, reference):
    ids = reference.tokenizer("the cache page file disk bug").input_ids
    rest = len(ids) - 3
    weights = {
        "labels": [0, 0, 1, 1, 0, *[1] * (len(ids) - 5)],
        "mask": [n % 2 for n in range(len(ids))],
        "weights": [0, 0, -1.5, *[0.25] * rest],
    }
    losses = [-reference.log_likelihood(ids, own) for own in weights.values()]
    expected = influence_of(forms, reference, losses)
    np.testing.assert_allclose(exact(forms, list(weights)), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_norm_of_a_document_is_that_of_its_whole_loss(forms):
    """Self-influence is stored with the vectors: of a pair it is not the sum of its sides'."""
    model = forms.model.tracked
    for name in ("pair of turns", "chat"):
        (ordinal,) = parts_of(forms, name)
        (batch,) = model.batches(forms.objectives(name), np.array([0]), 0)
        G, space = document_gradients(model.table.layers, 1, lambda b=batch: model.task.losses(b), batch.texts)
        total = 0.0
        for layer in forms.manifest.layers:
            f = forms.model.factors(layer.name)
            V = f.whiten(space.split(G)[layer.name], forms.manifest.damping.index)
            total += float(V.square().sum())
        stored = float(forms.snapshot.vectors.self_influence(np.array([ordinal]))[0])
        assert stored == pytest.approx(total, rel=1e-3)  # stored in 16 bits


def test_texts_and_contents_come_back(forms):
    chat = forms.document("chat")
    assert chat.form == "messages" and chat.content["messages"] == CHAT and chat.metadata == {"w": -0.5}
    assert chat.text == "".join(run for run, _ in CHAT_TEXT)
    pair = forms.document("pair")
    assert pair.content["chosen"] == " file" and pair.text.startswith("the page file")
    assert forms.document("labels").text == "the cache page file disk bug"


def test_words_find_what_is_said_and_not_the_templates(forms):
    found = [name for name, _ in forms.lexical("im_start assistant", 10)]
    assert "chat" not in found
    assert "chat" in [name for name, _ in forms.lexical("patch heap", 40)]


def test_the_loss_can_be_the_last_turn_or_everything(tmp_path, corpus, chat_model, make_config, reference):
    one = tmp_path / "one.jsonl"
    lines = [line for line in corpus.read_text().splitlines() if json.loads(line)["id"] in ("chat", "t1", "t2")]
    one.write_text("\n".join(lines))
    for loss, runs in (("last-turn", LAST_TEXT), ("all", [(run, True) for run, _ in CHAT_TEXT])):
        config = make_config(name=str(chat_model), max_tokens=256, loss=loss, dimension=128)
        GradientIndex.build([str(one)], tmp_path / loss, replace(config, fidelity=replace(config.fidelity, queries=0)))
        with DocumentTable.open(tmp_path / loss / "volumes/00000/documents.sqlite") as table:
            (objective,) = [o for o in table.objectives([0, 1, 2]) if len(o) > 30]
        ids, counts = reference.run_tokens(runs)
        assert objective.texts[0].ids.tolist() == ids
        assert objective.texts[0].weights.tolist() == [0.0, *counts[1:]]


def test_documents_without_a_token_that_counts_are_left_out_by_name(tmp_path, chat_model, make_config, caplog):
    path = tmp_path / "few.jsonl"
    ids = list(range(5))
    records = [
        {"id": "none counts", "input_ids": ids, "labels": [-100] * 5, "w": 1},
        {"id": "weighs nothing", "text": "the stack", "w": 0},
        *[{"id": f"t{n}", "text": "the stack the heap a bug", "w": 1} for n in range(3)],
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = make_config(name=str(chat_model), weight_field="w", dimension=128)
    GradientIndex.build([str(path)], tmp_path / "index", replace(config, fidelity=replace(config.fidelity, queries=0)))
    assert "2 documents have no token that counts and are left out: 'none counts', 'weighs nothing'" in caplog.text
    assert GradientIndex.open(tmp_path / "index", device="cpu").ids() == ["t0", "t1", "t2"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"input_ids": [1, 2], "labels": [1, 2, 3]}, "as many values in 'labels' as in 'input_ids', 2, found 3"),
        ({"input_ids": [1, 9999]}, "expected tokens of the model, below"),
        ({"input_ids": [1, 2], "labels": [2, -100]}, "labels that are the token of their own place"),
        ({"input_ids": [1, 2], "loss_weights": [1, "NaN"]}, "a list of numbers in 'loss_weights'"),
        ({"text": "a b", "w": float("nan")}, "a finite number as weight"),
        ({"text": "a b", "w": 1e300}, "a finite number as weight"),
        ({"input_ids": [1, 2], "loss_weights": [1, 1e300]}, "found NaN, or numbers beyond float32"),
        ({"text": "a b", "w": "much"}, "a finite number as weight"),
        ({"prompt": "a", "chosen": "b"}, "no field 'rejected' beside 'chosen'"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "both sides"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "two sides that differ"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "ref_chosen_logp": -1.0}, "give both or neither"),
        ({"messages": [*CHAT[:2], {"role": "assistant", "content": ""}]}, "turn 3"),
        ({"messages": CHAT[:2]}, "a turn of the assistant"),
        ({"text": "a b", "messages": CHAT}, "say with `form` which was trained on: text, messages"),
        ({"prompt": "a", "completion": ""}, "found an empty one"),
        ({"body": "a b"}, "the text field 'text', or the fields of another form"),
    ],
)
def test_what_is_refused(tmp_path, chat_model, make_config, record, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(
        json.dumps({"id": "good", "text": "the stack", "w": 1}) + "\n" + json.dumps({"id": "x", "w": 1, **record})
    )
    config = make_config(name=str(chat_model), weight_field="w", dimension=128)
    with pytest.raises(CorpusError) as caught:
        GradientIndex.build([str(path)], tmp_path / "index", config)
    assert message in str(caught.value)


def test_a_model_without_a_chat_template(tmp_path, model_folder, make_config):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": CHAT}))
    with pytest.raises(Exception, match="chat template"):
        GradientIndex.build([str(path)], tmp_path / "index", make_config())


def test_parts_to_rank_are_drawn_of_all_forms(forms):
    assert len(sample_parts(forms.snapshot.usable, None, 0)) == len(RECORDS) + 3 + 30


def test_losses_and_contents_survive_changes(tmp_path, forms, chat_model):
    """Adding, deleting and compacting keep what counts in every form, and a deep check finds nothing."""
    folder = tmp_path / "index"
    shutil.copytree(forms.snapshot.layout.root, folder)
    before = {name: forms.objectives(name) for name in [*RECORDS, "labels", "weights"]}
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"id": "again", "messages": CHAT, "w": 4}) + "\n")
    index = GradientIndex.open(folder, device="cpu")
    index.add([str(more)])
    index.delete(["t1", "t2", "mask"])
    compact(Layout(folder))
    assert verify(Layout(folder), deep=True)["problems"] == []
    changed = index.refresh()
    for name, parts in before.items():
        assert changed.document(name) == forms.document(name)
        for found, expected in zip(changed.objectives(name), parts, strict=True):
            assert found.preference == expected.preference
            for text, own in zip(found.texts, expected.texts, strict=True):
                assert text.ids.tobytes() == own.ids.tobytes() and text.weights.tobytes() == own.weights.tobytes()
    (added,) = changed.objectives("again")
    assert set(added.texts[0].weights.tolist()) == {0.0, 4.0}
    assert "again" in [name for name, _ in changed.lexical("patch heap", 40)]


def test_a_damaged_loss_is_found(tmp_path, forms):
    """A row that says what counts is checked as its part is; without it a prompt would count."""
    folder = tmp_path / "index"
    shutil.copytree(forms.snapshot.layout.root, folder)
    (ordinal,) = parts_of(forms, "completion")
    path = folder / "volumes/00000/documents.sqlite"
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM losses WHERE part = ?", (int(ordinal),))
    connection.close()
    index = GradientIndex.open(folder, device="cpu")
    with pytest.raises(CorruptStoreError, match=f"part {ordinal} as it was written"):
        index.snapshot.documents.objectives([ordinal])
