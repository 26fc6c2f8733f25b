"""Every family of models is right against autograd, or refused before any work: there is no third outcome."""

import pytest
from against_autograd import (
    HALF_COSINE,
    NARROW_TOLERANCE,
    TOLERANCE,
    Refused,
    Right,
    outcome_of,
)
from families import FAMILIES, Family


@pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])
def test_a_family_is_right_or_refused(family: Family, tmp_path, small_tokenizer, outcomes):
    model = family.model()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    found = outcomes[family.name] = outcome_of(folder, model)
    if family.refused is not None:
        assert isinstance(found, Refused), f"not refused; gradients are off by {found}"
        assert family.refused in found.message and len(found.message.splitlines()) == 1
        return
    assert isinstance(found, Right), found
    assert found.error < TOLERANCE
    assert found.narrow_error < NARROW_TOLERANCE and found.product_error < NARROW_TOLERANCE
    assert found.half_cosine is None or found.half_cosine > HALF_COSINE
    assert found.body > family.body


def test_the_catalogue_is_large_and_has_no_name_twice():
    names = [family.name for family in FAMILIES]
    assert len({family.kind for family in FAMILIES}) >= 40 and len(set(names)) == len(names)
