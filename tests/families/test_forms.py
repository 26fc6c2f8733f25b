"""Every form that a model is stored in is right against autograd, or refused before any work."""

import pytest
from against_autograd import NARROW_TOLERANCE, TOLERANCE, Refused, Right, outcome_of
from forms import Form, small_llama
from storage_forms import FORMS


@pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
def test_a_form_is_right_or_refused(form: Form, tmp_path, small_tokenizer, outcomes, capfd, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)  # nothing may be asked on the terminal
    folder, model = tmp_path / "model", small_llama()
    model.save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    held = form.make(folder, model)
    capfd.readouterr()
    found = outcomes[form.name] = outcome_of(folder, held if held is not None else small_llama(), form.allowed)
    assert not (folder / "ran").exists(), "code beside the weights was run"
    assert capfd.readouterr() == ("", ""), "transformers reaches the terminal"
    if form.refused is not None:
        assert isinstance(found, Refused), f"not refused; gradients are off by {found}"
        assert form.refused in found.message and len(found.message.splitlines()) == 1
        assert str(folder) in found.message
        return
    assert isinstance(found, Right), found
    assert found.error < TOLERANCE
    assert found.narrow_error < NARROW_TOLERANCE and found.product_error < NARROW_TOLERANCE


def test_the_catalogue_is_large_and_has_no_name_twice():
    names = [form.name for form in FORMS]
    assert len(names) >= 15 and len(set(names)) == len(names)
