"""Explanations add up to the exact influence."""

import pytest

from gindex.errors import StoreError

PROMPT, COMPLETION = "the compiler race", " bug the stack"


@pytest.mark.parametrize(
    "document", ["d3", "d146", "d149"]
)  # an ordinary one, one of a single token, one of many parts
def test_tokens_and_layers_add_up_to_exact_influence(index, document):
    hits = index.search(PROMPT, COMPLETION, k=500, exact=True, candidates=500).hits
    exact = {hit.part: hit.influence for hit in hits if hit.document_id == document}
    size = max(abs(hit.influence) for hit in hits)
    explanation = index.explain(document, PROMPT, COMPLETION)
    # Relative to the largest influence: float32 sums in another order, over terms of either sign; measured 1e-7.
    tolerance = 1e-5 * size
    assert {part.part for part in explanation.parts} == set(exact) and exact
    assert len(exact) > (document == "d149")
    for part in explanation.parts:
        assert part.influence == pytest.approx(exact[part.part], abs=tolerance)
        assert sum(token.influence for token in part.tokens) == pytest.approx(part.influence, abs=tolerance)
        assert [token.context for token in part.tokens] == [part.part > 0] + [False] * (len(part.tokens) - 1)
    for sums in (explanation.layers, explanation.groups):
        assert sum(sums.values()) == pytest.approx(sum(exact.values()), abs=tolerance)
    assert list(explanation.layers) == [layer.name for layer in index.manifest.layers]
    assert list(explanation.groups) == list(index.manifest.projection.slices)
    text = "".join(token.text for part in explanation.parts for token in part.tokens if not token.context)
    assert text == index.snapshot.documents.document(document).text


def test_document_that_is_not_there(index):
    with pytest.raises(StoreError, match="found no 'nobody'"):
        index.explain("nobody", PROMPT)
