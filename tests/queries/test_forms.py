"""Queries of every form: vectors and influence are those of the loss that a reference loop takes with autograd."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gindex import Query
from gindex.errors import QueryError
from gindex.queries.tokens import tokenize_query

TALK = [
    {"role": "system", "content": "the kernel"},
    {"role": "user", "content": "the compiler race"},
    {"role": "assistant", "content": "a bug the stack"},
    {"role": "user", "content": "the heap"},
    {"role": "assistant", "content": "a lock and a page"},
]
HEADER = "<|im_start|>assistant\n"
OTHER = [TALK[1], {"role": "assistant", "content": "a cache"}]
COMPLETION = Query(prompt="the compiler race", completion=" bug the stack")
SAID = Query(messages=TALK)


def rendered(messages) -> str:
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def answer(turn: int, messages=TALK) -> tuple[str, str]:
    """The text before what the assistant says in a turn, and what it says."""
    return rendered(messages[:turn]) + HEADER, messages[turn]["content"] + "<|im_end|>"


class Reference:
    """Log-likelihoods in float64 of runs of text, each cut into tokens by itself, and their gradients by autograd."""

    def __init__(self, folder) -> None:
        manifest = json.loads((folder / "manifests/00000001.json").read_text())
        self.model = AutoModelForCausalLM.from_pretrained(manifest["model"]["name"], dtype=torch.float64)
        self.tokenizer = AutoTokenizer.from_pretrained(manifest["model"]["name"])
        self.layers, self.tensors = manifest["layers"], {}
        self.damping = manifest["settings"]["curvature"]["damping_scale"]
        for path in (folder / "factors").iterdir():
            self.tensors |= {name: tensor.double() for name, tensor in load_file(path).items()}

    def loss(self, *runs: tuple[str, float]) -> torch.Tensor:
        """Loss of a text in runs, the tokens of each times its weight."""
        ids, weights = [], []
        for run, weight in runs:
            own = self.tokenizer(run, add_special_tokens=False).input_ids
            ids += own
            weights += [weight] * len(own)
        return self.loss_of_tokens(ids, weights)

    def loss_of_tokens(self, ids, weights) -> torch.Tensor:
        log_p = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return -sum(weights[t] * log_p[t - 1, ids[t]] for t in range(1, len(ids)))

    def gradients(self, loss) -> dict[str, torch.Tensor]:
        modules = [self.model.get_submodule(layer["name"]) for layer in self.layers]
        found = {}
        for layer, module in zip(self.layers, modules, strict=True):
            weight, *bias = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
            found[layer["name"]] = torch.cat([weight, *[b[:, None] for b in bias]], 1)
        return found

    def influence(self, query, document) -> float:
        """Exact EK-FAC influence between two gradients."""
        total = 0.0
        for layer in self.layers:
            Q_A, Q_S = self.tensors[f"activation.{layer['source']}"].T, self.tensors[f"gradient.{layer['name']}"].T
            Lambda = self.tensors[layer["name"]]
            q, d = (Q_S.T @ G[layer["name"]] @ Q_A for G in (query, document))
            total += float((q * d / (Lambda + self.damping * Lambda.mean())).sum())
        return total


@pytest.fixture(scope="module")
def reference(chat_built):
    return Reference(chat_built)


def _preference(reference, beta, chosen, rejected, margin=0.0):
    return -torch.nn.functional.logsigmoid(beta * (reference.loss(*rejected) - reference.loss(*chosen) - margin))


PROMPTED = ("the compiler race", 0)
FORMS = {
    "completion": (COMPLETION, lambda r: r.loss(PROMPTED, (" bug the stack", 1))),
    "weight": (replace(COMPLETION, weight=-2.5), lambda r: r.loss(PROMPTED, (" bug the stack", -2.5))),
    "span": (
        replace(COMPLETION, span=(5, 8)),
        lambda r: r.loss(PROMPTED, (" bug", 0), (" the", 1), (" stack", 0)),
    ),
    "contrast": (
        replace(COMPLETION, contrast=" page disk"),
        lambda r: r.loss(PROMPTED, (" bug the stack", 1)) - r.loss(PROMPTED, (" page disk", 1)),
    ),
    "span and contrast": (
        replace(COMPLETION, contrast=" page disk", span=(0, 4), weight=3.0),
        lambda r: 3 * (r.loss(PROMPTED, (" ", 0), ("bug", 1)) - r.loss(PROMPTED, (" page disk", 1))),
    ),
    "last turn": (SAID, lambda r: r.loss((answer(4)[0], 0), (answer(4)[1], 1))),
    "a turn": (replace(SAID, turn=3), lambda r: r.loss((answer(2)[0], 0), (answer(2)[1], 1))),
    "all turns": (
        replace(SAID, loss="assistant"),
        lambda r: r.loss(
            (answer(2)[0], 0), (answer(2)[1], 1), ("\n" + rendered(TALK[3:4]) + HEADER, 0), (answer(4)[1], 1)
        ),
    ),
    "all tokens": (replace(SAID, loss="all"), lambda r: r.loss((rendered(TALK), 1))),
    "span of a turn": (
        replace(SAID, turn=3, span=(2, 9)),
        lambda r: r.loss((answer(2)[0], 0), ("a ", 0), ("bug", 1), (" the", 1)),
    ),
    "another answer": (
        replace(SAID, contrast="a parser"),
        lambda r: r.loss((answer(4)[0], 0), (answer(4)[1], 1)) - r.loss((answer(4)[0], 0), ("a parser<|im_end|>", 1)),
    ),
    "another conversation": (
        replace(SAID, contrast=OTHER),
        lambda r: (
            r.loss((answer(4)[0], 0), (answer(4)[1], 1)) - r.loss((answer(1, OTHER)[0], 0), (answer(1, OTHER)[1], 1))
        ),
    ),
    "labels": (
        Query(input_ids=[80, 90, 100, 110], labels=[-100, -100, 100, -100]),
        lambda r: r.loss_of_tokens([80, 90, 100, 110], [0, 0, 1, 0]),
    ),
    "token weights": (
        Query(input_ids=[80, 90, 100, 110], loss_weights=[0, 0.5, 0, -1.0], weight=2.0),
        lambda r: r.loss_of_tokens([80, 90, 100, 110], [0, 1.0, 0, -2.0]),
    ),
    "preference": (
        Query(prompt="the page", chosen=" file", rejected=" disk race", beta=0.3, weight=2.0),
        lambda r: 2 * _preference(r, 0.3, [("the page", 0), (" file", 1)], [("the page", 0), (" disk race", 1)]),
    ),
    "preference of turns": (
        Query(chosen=TALK[:3], rejected=[*TALK[:2], TALK[4]], ref_chosen_logp=-11.0, ref_rejected_logp=-12.5),
        lambda r: _preference(
            r, 0.1, [(answer(2)[0], 0), (answer(2)[1], 1)], [(answer(2)[0], 0), (answer(4)[1], 1)], 1.5
        ),
    ),
    "mean": (
        Query(queries=[replace(COMPLETION, weight=3.0), replace(SAID, contrast="a parser")], aggregate="mean"),
        lambda r: 0.75 * FORMS["completion"][1](r) + 0.25 * FORMS["another answer"][1](r),
    ),
    "sum": (
        Query(
            queries=[COMPLETION, replace(COMPLETION, weight=-0.5), Query(input_ids=[80, 90], weight=2.0)],
            aggregate="sum",
            weight=-1.0,
        ),
        lambda r: -0.5 * FORMS["completion"][1](r) - 2 * r.loss_of_tokens([80, 90], [0, 1]),
    ),
}
ROUNDING = 2e-5
"""Float32 against float64, relative to the largest; contrasts and sets add the rounding of each of their texts."""


@pytest.mark.parametrize("form", FORMS)
def test_exact_influence_is_that_of_the_reference_loss(chat_index, reference, form):
    query, loss = FORMS[form]
    gradients = reference.gradients(loss(reference))
    documents = [name for name in (f"d{n}" for n in range(20)) if len(chat_index.objectives(name)) == 1][:3]
    found = [chat_index.explain(name, query).influence for name in documents]
    expected = []
    for name in documents:
        (objective,) = chat_index.objectives(name)
        (text,) = objective.texts
        own = reference.gradients(reference.loss_of_tokens(text.ids.tolist(), text.weights.tolist()))
        expected.append(reference.influence(gradients, own))
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * np.abs(expected).max())
    hits = chat_index.search(query, k=10_000, exact=True, candidates=10_000).hits
    by_name = {hit.document_id: hit.influence for hit in hits}
    np.testing.assert_allclose(
        [by_name[n] for n in documents], expected, rtol=0, atol=ROUNDING * np.abs(expected).max()
    )


@pytest.mark.parametrize("form", FORMS)
def test_the_vector_is_that_of_the_reference_loss(chat_index, reference, form):
    """What the stored vectors are scored with, against the same path taken with autograd's gradient."""
    query, loss = FORMS[form]
    gradients = {name: G[None].float() for name, G in reference.gradients(loss(reference)).items()}
    (encoded,) = chat_index.encode([query])
    whitening = chat_index.model.whitening
    from gindex.vectors.gradients import encode_gradients

    expected = encode_gradients(gradients, whitening.factors, whitening.damping, whitening.projection)[0]
    torch.testing.assert_close(encoded.vector_D, expected, rtol=0, atol=ROUNDING * float(expected.abs().max()))
    scores = {hit.document_id: hit.score for hit in chat_index.search(query, k=5).hits}
    by_vector = {hit.document_id: hit.score for hit in chat_index.search_vectors(expected[None], k=5)[0].hits}
    assert scores == pytest.approx(by_vector, rel=1e-3)


def vectors(index, *queries) -> list[torch.Tensor]:
    return [found.vector_D.double() for found in index.encode(queries)]


@pytest.mark.parametrize("query", [replace(COMPLETION, contrast=" page"), replace(SAID, contrast="a parser")])
def test_a_contrast_is_the_difference_of_two_vectors(chat_index, query):
    other = (
        replace(query, completion=query.contrast, contrast=None)
        if query.completion
        else replace(query, messages=[*TALK[:4], {"role": "assistant", "content": query.contrast}], contrast=None)
    )
    together, said, against = vectors(chat_index, query, replace(query, contrast=None), other)
    torch.testing.assert_close(together, said - against, rtol=0, atol=1e-6 * float(said.abs().max()))


def test_a_mean_is_the_mean_of_vectors(chat_index):
    members = [COMPLETION, SAID, replace(COMPLETION, contrast=" page", weight=2.0)]
    first, second, third = vectors(chat_index, COMPLETION, SAID, replace(members[2], weight=1.0))
    mean, total = vectors(chat_index, *(Query(queries=members, aggregate=name) for name in ("mean", "sum")))
    expected = first + second + 2 * third
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    torch.testing.assert_close(mean, expected / 4, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_words_are_what_was_said(chat_index):
    def words(query):
        return chat_index.encode([query])[0].words

    said = "the kernel\nthe compiler race\na bug the stack\nthe heap\na lock and a page"
    assert words(SAID) == said and "im_start" not in words(SAID)
    assert words(replace(COMPLETION, contrast=" page")) == "the compiler race bug the stack"
    ids = chat_index.model.tracked.loaded.tokenizer("<|im_start|>the stack", add_special_tokens=False).input_ids
    assert words(Query(input_ids=ids)) == "the stack"
    assert words(Query(queries=[COMPLETION, Query(input_ids=ids)], aggregate="mean")).splitlines() == [
        "the compiler race bug the stack",
        "the stack",
    ]
    assert chat_index.search(SAID, words="rank", k=3).hits[0].lexical is not None


@pytest.mark.parametrize("form", ["contrast", "another answer", "mean", "preference"])
def test_a_re_rank_that_stops_early_or_refines_takes_every_form(chat_index, form):
    query = FORMS[form][0]
    stopped = chat_index.search(query, k=3, exact=True, candidates=150, certainty=0.5)
    assert [hit.rank for hit in stopped.hits] == [1, 2, 3] and stopped.reranked <= 150
    refined = chat_index.search(query, k=3, exact=True, candidates=20, refine="cg", refine_parts=20)
    assert refined.refinement.method == "cg" and all(np.isfinite(hit.influence) for hit in refined.hits)


def test_fidelity_takes_every_form(chat_index):
    measured = chat_index.fidelity([FORMS[name][0] for name in ("contrast", "last turn", "mean", "labels")], parts=60)
    assert np.isfinite(measured.measures["pearson"].mean)


def tokens(index, query, **options):
    return tokenize_query(query, index.model.tracked.loaded, **options)


@pytest.mark.parametrize("exchanges", [2, 5])
def test_a_long_conversation_loses_its_earliest_exchanges(chat_index, exchanges):
    messages = [TALK[0], *TALK[1:3] * exchanges, *TALK[3:]]
    whole = tokens(chat_index, Query(messages=messages))
    most = len(whole.objective) - 1
    with pytest.raises(QueryError, match=f"expected at most {most} tokens.*`long_queries` cut"):
        tokens(chat_index, Query(messages=messages), max_tokens=most)
    found = tokens(chat_index, Query(messages=messages), long_queries="cut", max_tokens=most)
    expected = tokens(chat_index, Query(messages=[TALK[0], *messages[3:]]))
    assert found.objective.texts[0].ids.tolist() == expected.objective.texts[0].ids.tolist()
    assert found.notes == (f"of {len(messages)} turns, turns 2 to 3 are left out, to keep {most} tokens, which are "
                           "allowed here",)  # fmt: skip
    smallest = tokens(chat_index, Query(messages=[TALK[0], *TALK[3:]]))
    alone = tokens(chat_index, Query(messages=messages), long_queries="cut", max_tokens=len(smallest.objective))
    assert alone.objective.texts[0].ids.tolist() == smallest.objective.texts[0].ids.tolist()
    with pytest.raises(QueryError, match="too many without the earlier turns"):
        tokens(chat_index, Query(messages=messages), long_queries="cut", max_tokens=len(smallest.objective) - 1)


@pytest.mark.parametrize("query", [
    Query(prompt="the stack " * 20 + "a", completion=" bug", contrast=" page the disk"),
    Query(prompt="the stack " * 20 + "a", chosen=" bug", rejected=" page the disk"),
    Query(messages=[TALK[0], *TALK[1:3] * 4, *TALK[3:]], contrast="a parser token the cache " * 3),
])  # fmt: skip
def test_what_is_compared_is_cut_alike(chat_index, query):
    """Both texts keep the same beginning, so that they differ in nothing but what is said."""
    whole = tokens(chat_index, query).objective
    found = tokens(chat_index, query, long_queries="cut", max_tokens=whole.longest - 1)
    assert found.objective.longest < whole.longest and len(found.notes) == 2
    first, second = (text.ids[: int(text.counted.argmax())].tolist() for text in found.objective.texts)
    assert first == second
    assert [t.weights[t.counted].tolist() for t in found.objective.texts] == [
        t.weights[t.counted].tolist() for t in whole.texts
    ]


def test_long_tokens_lose_those_that_do_not_count(chat_index):
    ids = list(range(60, 90))
    found = tokens(chat_index, Query(input_ids=ids), long_queries="cut", max_tokens=10)
    assert found.objective.texts[0].ids.tolist() == ids[-10:] and "do not count" in found.notes[0]
    masked = Query(input_ids=ids, loss_mask=[0] * 25 + [1] * 5)
    found = tokens(chat_index, masked, long_queries="cut", max_tokens=6)
    assert found.objective.texts[0].weights.tolist() == [0, 1, 1, 1, 1, 1]
    with pytest.raises(QueryError, match="at most 5 tokens"):
        tokens(chat_index, masked, long_queries="cut", max_tokens=5)


TURNS = [TALK[1], TALK[2]]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(messages=TURNS, prompt="a"), "the fields of one form"),
        (Query(messages=TURNS, input_ids=[1, 2]), "the fields of one form"),
        (Query(prompt="a b", labels=[1, 2]), "the fields of one form"),
        (Query(messages=TALK[:2]), "ends with the assistant's answer"),
        (Query(messages=TALK[:1], loss="assistant"), "a turn of the assistant"),
        (Query(messages=TURNS, loss="some"), "one of assistant, last-turn, all"),
        (Query(messages=TURNS, loss="all", span=(0, 1)), "no other `loss`"),
        (Query(messages=TURNS, turn=1), "from 1: 2, found 1, a turn of 'user'"),
        (Query(messages=TURNS, turn=9), "from 1: 2, found 9"),
        (Query(messages=TURNS, span=(0, 99)), "characters within 0:15"),
        (Query(messages=TURNS, contrast="a bug the stack"), "another text"),
        (Query(messages=TURNS, contrast=""), "contrast, turn 2 (assistant)"),
        (Query(messages=TURNS, contrast=TALK[:2]), "contrast: expected a conversation that ends with"),
        (Query(messages=[{"role": "user"}, TALK[2]]), "turn 1 (user): expected content"),
        (replace(COMPLETION, contrast=" bug the stack"), "another text"),
        (Query(prompt="the", completion=" compiler race", contrast=" compiler", span=(0, 9)), "another text"),
        (replace(COMPLETION, contrast=""), "contrast: expected a completion with at least one token"),
        (replace(COMPLETION, contrast=TURNS), "contrast: expected a text"),
        (replace(COMPLETION, span=(3, 3)), "characters within 0:14, at least one"),
        (replace(COMPLETION, span=(-1, 3)), "characters within 0:14"),
        (Query(prompt="a b", span=(0, 1)), "a completion beside the span"),
        (replace(COMPLETION, weight=float("nan")), "a finite number other than zero"),
        (replace(COMPLETION, weight=0.0), "leave the query out"),
        (Query(input_ids=[1, 2], labels=[-100, -100]), "a token after the first that counts"),
        (Query(input_ids=[1, 2], labels=[1, 2, 3]), "as many values"),
        (Query(input_ids=[1, 2], labels=[2, 1]), "labels that are the token"),
        (Query(input_ids=[1, 2], loss_weights=[0, float("inf")]), "finite numbers"),
        (Query(input_ids=[1, 99_999]), "tokens of the model"),
        (Query(input_ids=[]), "at least one token"),
        (Query(chosen="a b"), "rejected"),
        (Query(prompt="a", chosen=" b", rejected=" b"), "two sides that differ"),
        (Query(prompt="a", chosen=" b", rejected=" c", beta=0.0), "beta"),
        (Query(prompt="a", chosen=" b", rejected=" c", ref_chosen_logp=-1.0), "both or neither"),
        (Query(queries=[], aggregate="sum"), "at least one query"),
        (Query(queries=[COMPLETION], aggregate="median"), "mean or sum"),
        (Query(queries=[COMPLETION, replace(COMPLETION, weight=-1.0)], aggregate="sum"), "do not cancel out"),
        (Query(queries=[COMPLETION, replace(SAID, weight=-1.0)], aggregate="mean"), "do not add up to zero"),
        (Query(queries=[Query(queries=[COMPLETION], aggregate="sum")], aggregate="sum"), "another set"),
        (Query(queries=[Query(chosen="a b", rejected="a c")], aggregate="sum"), "a preference"),
        (Query(queries=[COMPLETION, Query(prompt="a b", completion="")], aggregate="sum"), "query 2: expected"),
    ],
)
def test_what_is_no_query(chat_index, query, words):
    with pytest.raises(QueryError) as caught:
        tokens(chat_index, query)
    assert words in str(caught.value)


def test_a_model_without_a_chat_template(index):
    with pytest.raises(QueryError, match="a chat template"):
        tokens(index, SAID)


def test_a_template_that_drops_a_turn(chat_index):
    loaded = copy.copy(chat_index.model.tracked.loaded)
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("in messages", "in messages if m.role != 'system'")
    with pytest.raises(QueryError, match="query q, turn 1"):
        tokenize_query(replace(SAID, id="q"), replace(loaded, tokenizer=tokenizer))
