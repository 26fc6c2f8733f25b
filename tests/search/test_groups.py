"""Scores by the value of a field, against a plain loop in float64 over all stored vectors."""

import json
from collections import defaultdict

import numpy as np
import pytest
import torch

from gindex import GradientIndex
from gindex.documents.field_values import SHOWN_CHARACTERS, read_field_values
from gindex.errors import ConfigError, FilterError
from gindex.search import sweeper
from gindex.search.result import result_record

ROUNDING = 3e-6
"""Of the largest product of a query's and a part's length, a part: queries are rounded to 16 bits a coordinate, and
sums cancel. The largest document has 8 parts."""


@pytest.fixture(scope="module")
def opened(sourced) -> GradientIndex:
    return GradientIndex.open(sourced, device="cpu")


@pytest.fixture(scope="module")
def queries(opened) -> np.ndarray:
    vectors = opened.snapshot.vectors.decoded(np.array([5, 40, 80])).numpy()
    return (vectors + np.random.default_rng(1).standard_normal(vectors.shape)).astype(np.float32)


def values_of(metadata: dict, field: str) -> list:
    """What the documents say of fields: each value with its type, as text."""
    value = metadata
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    elements = (value or [None]) if isinstance(value, list) else [value]
    number = [float(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v for v in elements]
    return list({json.dumps(v, sort_keys=True) for v in number})


def expected(
    index: GradientIndex, query: np.ndarray, field: str, normalise: str, allowed
) -> tuple[dict[str, list[float]], float]:
    """Scores of the documents of each value, summed over parts one by one; and the largest product of two lengths."""
    reader, table = index.snapshot.vectors, index.snapshot.documents
    lengths, scores, metadata, largest = table.part_lengths(), defaultdict(float), {}, 0.0
    for ordinal in index.snapshot.usable_parts.tolist():
        (part,) = table.parts([ordinal])
        x = reader.decoded(np.array([ordinal]))[0].double().numpy()
        q = query.astype(np.float64)
        divisor = {
            "none": 1.0,
            "unit": np.linalg.norm(x) * np.linalg.norm(q),
            "relatif": np.sqrt(float(reader.self_influence(np.array([ordinal]))[0])),
            "length": max(1, lengths[ordinal] - 1),
        }[normalise]
        divisor = divisor or np.inf  # a part of one token, whose vector is zeros
        if allowed(part.metadata):
            scores[part.document_id] += float(q @ x) / divisor
            largest = max(largest, float(np.linalg.norm(q) * np.linalg.norm(x) / divisor))
            metadata[part.document_id] = part.metadata
    groups = defaultdict(list)
    for document, score in scores.items():
        for value in values_of(metadata[document], field):
            groups[value].append(score)
    return groups, largest


def named(value) -> str:
    """A group's value as `values_of` has it; objects and arrays are shown as their JSON."""
    if isinstance(value, str) and value[:1] in "[{":
        return json.dumps(json.loads(value), sort_keys=True)
    return json.dumps(float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value)


@pytest.mark.parametrize("normalise", ["none", "unit", "relatif", "length"])
@pytest.mark.parametrize("field", ["source", "tags", "origin", "origin.site", "mark"])
def test_groups_are_sums_over_all_documents(opened, queries, field, normalise):
    results = opened.search_vectors(queries, k=1, group_by=field, normalise=normalise, where="number >= 2")
    for query, result in zip(queries, results, strict=True):
        groups, largest = expected(opened, query, field, normalise, lambda metadata: metadata["number"] >= 2)
        found = {named(group.value): group for group in result.groups.groups}
        assert found.keys() == groups.keys() and result.groups.values == len(groups)
        assert result.groups.documents == len(opened.ids("number >= 2")) and result.groups.others is None
        for value, scores in groups.items():
            tolerance = ROUNDING * largest * (len(scores) + 8)
            assert found[value].documents == len(scores)
            assert found[value].sum == pytest.approx(sum(scores), abs=tolerance)
            assert found[value].mean == pytest.approx(np.mean(scores), abs=tolerance)


def test_values_that_look_alike_are_told_apart(opened, queries):
    """1 and 1.0 are one number; true and "1" are others. Each is in 25 documents, of which one is deleted."""
    (result, *_) = opened.search_vectors(queries, k=1, group_by="mark")
    counts = {(type(group.value).__name__, group.value): group.documents for group in result.groups.groups}
    assert counts == {("int", 1): 50, ("bool", True): 24, ("str", "1"): 25, ("NoneType", None): 50}


def test_ends_are_shown_and_the_others_counted(opened, queries):
    (whole, *_) = opened.search_vectors(queries, k=1, group_by="number", groups=500)
    (some, *_) = opened.search_vectors(queries, k=1, group_by="number", groups=5)
    (negative, *_) = opened.search_vectors(queries, k=1, group_by="number", groups=5, negative=True)
    sums = [group.sum for group in whole.groups.groups]
    assert sums == sorted(sums, reverse=True) and len(sums) == whole.groups.values == len(opened.ids())
    assert some.groups.groups == whole.groups.groups[:3] + whole.groups.groups[-2:]
    assert negative.groups.groups == whole.groups.groups[:-4:-1] + whole.groups.groups[1::-1]
    others = some.groups.others
    assert others.values == others.documents == len(sums) - 5
    assert others.sum == pytest.approx(sum(sums[3:-2]))
    assert len(json.dumps(result_record(some)["groups"])) < 2000


def test_hits_do_not_change_with_groups_nor_groups_with_what_a_hit_is(opened, queries):
    plain = opened.search_vectors(queries, k=5)
    grouped = opened.search_vectors(queries, k=5, group_by="source")
    by_document = opened.search_vectors(queries, k=5, group_by="source", hits="document", document_score="max")
    assert [result.hits for result in plain] == [result.hits for result in grouped]
    assert [result.groups for result in grouped] == [result.groups for result in by_document]
    assert all(result.groups is None for result in plain)


def test_groups_do_not_depend_on_the_blocks(opened, queries, monkeypatch):
    expected = [result.groups for result in opened.search_vectors(queries, k=1, group_by="tags")]
    monkeypatch.setattr(sweeper, "BLOCK_PARTS", 7)
    monkeypatch.setattr(sweeper, "HELD_SCORES", 200)  # one query at a time
    assert [result.groups for result in opened.search_vectors(queries, k=1, group_by="tags")] == expected


def test_a_lone_document_has_no_interval_and_others_have_one_around_the_mean(opened, queries):
    for result in opened.search_vectors(queries, k=1, group_by="source"):
        groups = {group.value: group for group in result.groups.groups}
        assert groups["lone"].documents == 1 and groups["lone"].mean_interval is groups["lone"].sum_interval is None
        for value in ("web", "books", None):
            group, (low, high) = groups[value], groups[value].mean_interval
            assert low < group.mean < high
            assert group.sum_interval == pytest.approx((low * group.documents, high * group.documents))


def test_nothing_passes_the_filter(opened, queries):
    for result in opened.search_vectors(queries, k=1, group_by="source", where="number < 0"):
        assert (result.groups.documents, result.groups.values, result.groups.groups) == (0, 0, ())


def test_groups_of_a_second_level_are_of_its_scores(sourced, tmp_path):
    """A transform takes part in the scores, so the groups' sums are those of the hits."""
    import shutil

    from gindex.change.reindex import reindex
    from gindex.store.layout import Layout

    copy = shutil.copytree(sourced, tmp_path / "index")
    reindex(Layout(copy), "flat", transform="second-level")
    index = GradientIndex.open(copy, device="cpu")
    for normalise in ("none", "unit"):
        hits = index.search("the stack", k=1000, scan=True, normalise=normalise).hits
        result = index.search("the stack", k=1, group_by="number", groups=500, normalise=normalise)
        sums = defaultdict(float)
        for hit in hits:
            sums[hit.metadata["number"]] += hit.score
        tolerance = 1e-4 * max(map(abs, sums.values()))
        assert {group.value: group.sum for group in result.groups.groups} == pytest.approx(sums, abs=tolerance)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("colour", "group_by: expected a field of the documents \\(.*source.*\\), found 'colour'"),
        ("id", "found `id` is each document's own"),
        ("two words", "found 'two words'; write it as in a filter"),
        ("document", "`hits` document says what a hit is"),
        ("\ud800", "group_by"),
        ("a" * 10_000, "group_by"),
    ],
)
def test_what_is_no_field_is_refused(opened, queries, field, message):
    with pytest.raises(FilterError, match=message) as caught:
        opened.search_vectors(torch.from_numpy(queries), k=1, group_by=field)
    assert len(str(caught.value)) < 1000


def test_groups_need_a_field(opened):
    with pytest.raises(ConfigError, match="groups: expected `group_by` beside it"):
        opened.search("a b", groups=3)


def test_long_values_are_cut_and_stay_apart(built, more, tmp_path):
    import shutil

    copy = shutil.copytree(built, tmp_path / "index")
    path = more({})
    long = "x" * 5000
    records = [{"id": f"l{n}", "text": "the stack the heap", "note": f"{long}{n}"} for n in range(2)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    index = GradientIndex.open(copy, device="cpu")
    index.add([str(path)])
    table = index.refresh().snapshot.documents
    found = read_field_values(table, "note")
    assert len(found.values) == 3 and all(value is None or len(value) == SHOWN_CHARACTERS + 3 for value in found.values)
    assert len(found.documents_P) == table.counts().documents
