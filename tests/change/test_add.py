"""Adding documents: what is found, what is refused, and what the new version is."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gindex import GradientIndex
from gindex.build.run import run_build
from gindex.change.reindex import reindex
from gindex.change.verify import verify
from gindex.corpus.batches import pad
from gindex.errors import BusyError, ConfigError, CorpusError, CorruptStoreError, SettingsMismatchError
from gindex.files.locks import held
from gindex.progress import Silent
from gindex.queries.tokens import QueryTokens
from gindex.store.factors import FactorReader
from gindex.store.layout import Layout
from gindex.store.snapshot import Snapshot
from gindex.store.versions import version_numbers
from gindex.vectors.norms import whitened_norms

PROMPT, COMPLETION = "the compiler race", " bug the stack"
TEXTS = {"n0": "a race in the kernel", "n1": "the compiler race bug the stack " * 8, "n2": "a patch"}


def ids(index: GradientIndex, k: int = 10_000, **more: object) -> list[str]:
    return [hit.document_id for hit in index.search(PROMPT, COMPLETION, k=k, **more).hits]


def test_added_documents_are_found_and_the_old_version_stays(opened, folder, more):
    before = [(hit.document_id, hit.part, hit.score) for hit in opened.search(PROMPT, COMPLETION, k=10_000).hits]
    done = opened.add([str(more(TEXTS))])
    assert (done.documents, done.replaced, done.manifest.version) == (3, 0, 2)
    assert [
        (hit.document_id, hit.part, hit.score) for hit in opened.search(PROMPT, COMPLETION, k=10_000).hits
    ] == before
    grown = opened.refresh()
    hits = grown.search(PROMPT, COMPLETION, k=10_000).hits
    assert {hit.document_id for hit in hits} == {name for name, *_ in before} | TEXTS.keys()
    old = {(hit.document_id, hit.part): hit.score for hit in hits}
    for name, part, score in before:
        # The same vectors; FAISS adds 512 float32 products in blocks that depend on the number of vectors.
        assert old[name, part] == pytest.approx(score, rel=1e-4, abs=1e-4)
    assert "n1" in ids(grown, k=3)
    assert verify(Layout(folder), deep=True)["problems"] == []
    assert ids(GradientIndex.open(folder, version=1)) == [name for name, *_ in before]


def test_exact_influence_of_added_documents(opened, more):
    opened.add([str(more(TEXTS))])
    hits = opened.refresh().search(PROMPT, COMPLETION, k=10_000, exact=True, candidates=10_000).hits
    assert {hit.document_id for hit in hits} > TEXTS.keys()
    assert [hit.influence for hit in hits] == sorted((hit.influence for hit in hits), reverse=True)


def test_vectors_are_those_that_a_build_over_the_same_text_gives(opened, folder, corpus_file, more):
    """The texts of the index once more, under other ids: equal vectors up to the rounding of 1-bit codes' scales."""
    records = [json.loads(line) for line in corpus_file.read_text().splitlines()]
    opened.add([str(more({f"again {record['id']}": record["text"] for record in records}))])
    version = Snapshot.open(Layout(folder))
    first, second = version.manifest.volumes
    reader = version.vectors
    old, new = (reader.decoded(np.arange(v.first_part, v.first_part + v.parts)) for v in (first, second))
    # The same parts in batches of other neighbours: float32 sums in another order, which may turn a sign near zero.
    assert (old.sign() == new.sign()).float().mean() > 0.999
    torch.testing.assert_close(old.norm(dim=1), new.norm(dim=1), rtol=1e-4, atol=1e-4)


def test_part_of_a_corpus_is_added(opened, folder, more, caplog):
    path = str(more({f"m{n}": "a stack and a heap" for n in range(9)}))
    assert opened.add([path], limit=2).documents == 2
    grown = opened.refresh()
    assert [name for name in grown.ids() if name.startswith("m")] == ["m0", "m1"]
    assert grown.add([path], sample=4, replace=True).documents == 4
    assert "4 of 9 documents taken, by `sample`" in caplog.text
    with pytest.raises(ConfigError, match="limit and sample"):
        opened.add([path], limit=1, sample=1)
    assert grown.manifest.settings.corpus.sample is None


def test_ids_that_are_there_are_refused_whole_or_replaced(opened, folder, more):
    path = more(TEXTS | {"d3": "the stack"})
    with pytest.raises(CorpusError, match=r"document 'd3': expected an id that is not in the index.*`replace`"):
        opened.add([str(path)])
    assert version_numbers(Layout(folder)) == [1] and verify(Layout(folder))["problems"] == []
    done = opened.add([str(path)], replace=True)
    assert (done.documents, done.replaced) == (4, 1)
    grown = opened.refresh()
    assert ids(grown).count("d3") == 1
    (hit,) = [hit for hit in grown.search(PROMPT, k=10_000).hits if hit.document_id == "d3"]
    assert hit.text == "the stack"
    with Snapshot.open(Layout(folder)).table() as table:
        assert table.document("d3").text == "the stack"
    assert verify(Layout(folder), deep=True)["problems"] == []


def test_repeated_ids_within_the_new_documents(opened, folder, tmp_path):
    path = tmp_path / "more.jsonl"
    path.write_text('{"id": "x", "text": "a stack"}\n' * 2)
    with pytest.raises(CorpusError, match="'x'"):
        opened.add([str(path)])
    assert version_numbers(Layout(folder)) == [1]


def test_text_that_is_far_from_the_fit_is_called_so(opened, more):
    words = ["the", "a", "compiler", "kernel", "stack", "heap", "lock", "thread", "race", "cache"]
    random = np.random.default_rng(0)
    sentences = [" ".join(random.choice(words, 12)) for _ in range(40)]
    near = opened.add([str(more({f"n{n}": text for n, text in enumerate(sentences)}))])
    assert not near.far and 0.8 < near.norm_ratio < 1.25
    strange = more({f"s{n}": "~~ZQ@@" * (2 + n % 3) for n in range(20)}, "strange.jsonl")
    far = opened.add([str(strange)])
    assert far.far and not 0.8 < far.norm_ratio < 1.25


def test_another_writer_is_refused_at_once(opened, folder, more):
    with held(Layout(folder).lock), pytest.raises(BusyError, match="another gindex process is writing here"):
        opened.add([str(more(TEXTS))])
    assert not Layout(folder).lock.exists()


def test_another_model_is_refused(folder, more, nan_model):
    with pytest.raises(SettingsMismatchError, match="expected model"):
        GradientIndex.open(folder, model=str(nan_model), device="cpu").add([str(more(TEXTS))])


@pytest.fixture
def nan_model(tmp_path, make_small_model, small_tokenizer):
    make_small_model(len(small_tokenizer), seed=5).save_pretrained(tmp_path / "other")
    small_tokenizer.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_damaged_factors_are_refused_before_they_are_used(opened, folder, more):
    path = folder / "factors/eigenvalues-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for act in (
        lambda: opened.add([str(more(TEXTS))]),
        lambda: GradientIndex.open(folder).search(PROMPT),
        lambda: GradientIndex.open(folder, device="cpu").explain("d1", PROMPT),
    ):
        with pytest.raises(CorruptStoreError, match=f"{path}: expected CRC-32C"):
            act()


def test_after_a_rollback_another_add_takes_other_files(opened, folder, more):
    from gindex.change.rollback import rollback

    opened.add([str(more(TEXTS))])
    rollback(Layout(folder), 1)
    opened.add([str(more({"other": "a heap of stacks"}, "other.jsonl"))])
    for version in (1, 2, 3, 4):
        assert verify(Layout(folder), version)["problems"] == []
    assert "n0" in ids(GradientIndex.open(folder, version=2)) and "other" not in ids(
        GradientIndex.open(folder, version=2)
    )
    assert "other" in ids(GradientIndex.open(folder)) and "n0" not in ids(GradientIndex.open(folder))


def test_index_with_additions_is_finished_for_build(opened, folder, more, corpus_file, make_config):
    opened.add([str(more(TEXTS))])
    assert run_build([str(corpus_file)], folder, make_config()).version == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [("flat", "flat"), ("flat", "rabitq"), ("fp16", "fp16"), ("rabitq", "rabitq"), ("ivf", "rabitq")],
)
def test_an_add_makes_a_file_of_its_own_parts(opened, folder, more, monkeypatch, before, after):
    """Of the kind of the others, or of what suits the whole; the others are not looked at."""
    reindex(Layout(folder), before)
    monkeypatch.setattr("gindex.ann.spec.FLAT_BYTES", 0 if after == "rabitq" else 1 << 30)
    old = Snapshot.open(Layout(folder)).manifest
    path = folder / old.search.main.file
    content = path.read_bytes()
    path.write_bytes(bytes(len(content)))
    added = opened.add([str(more(TEXTS))]).manifest
    path.write_bytes(content)
    assert [file.kind for file in added.search.faiss] == [before, after]
    assert added.search.faiss[0] == old.search.main and added.search.runs[1].start == old.stored_parts
    assert old.search.recall is not None
    assert added.search.recall == replace(old.search.recall, parts=old.stored_parts)
    assert verify(Layout(folder), deep=True)["problems"] == []
    assert "n1" in ids(opened.refresh(), k=3)


def test_whitened_norm_is_the_root_of_a_documents_influence_on_itself(index):
    """Both are <G, H^-1 G>: one whitens in the eigenbasis, the other preconditions and never rotates the document."""
    ordinals = np.array([0, 3, 7])
    tokens = index.snapshot.documents.objectives(ordinals)
    queries = [QueryTokens(part) for part in tokens]
    influence = index.reranker.influence(queries, [ordinals[[n]] for n in range(3)], Silent())
    factors = FactorReader(index.snapshot.layout, index.manifest.layers, torch.device("cpu"))
    damping, losses = index.manifest.damping.exact, index.model.tracked.task.losses
    for part, expected in zip(tokens, influence, strict=True):
        batch = pad([part], [0])
        found = whitened_norms(index.model.tracked.table.layers, factors.load, damping, 1, lambda b=batch: losses(b))
        assert float(found[0]) ** 2 == pytest.approx(float(expected[0]), rel=1e-4)
