"""What long parts cost: the memory of attention that forms all its scores, and time that grows with the length."""

import numpy as np
import pytest
from families import FAMILIES

from gindex.build import pass_speed
from gindex.build.token_bytes import token_bytes
from gindex.config import ModelConfig
from gindex.model.tracked_model import TrackedModel


@pytest.fixture
def load(model_folder):
    def make() -> TrackedModel:
        return TrackedModel.load(ModelConfig(name=str(model_folder), device="cpu"))

    return make


def test_memory_of_eager_attention_grows_with_the_square_of_the_length(load):
    """Two blocks of four heads keep their scores and their softmax: at least 2 * 4 * 4 bytes a pair of tokens."""
    plain, eager = load(), load()
    eager.loaded.model.set_attn_implementation("eager")
    short, long = (token_bytes(eager, length).saved for length in (16, 64))
    assert long - short >= 2 * 4 * 4 * (64 - 16)
    assert token_bytes(plain, 64).saved < 1.2 * token_bytes(plain, 16).saved


def test_seconds_a_token_follow_the_lengths_of_all_parts(load, monkeypatch):
    """A pass of 2 T + T^2 / 100 seconds: the mean over the tokens of all parts, exactly."""
    monkeypatch.setattr(pass_speed, "_pass_seconds", lambda _model, length: 2 * length + length**2 / 100)
    monkeypatch.setattr(pass_speed, "SHORT", 8)
    lengths = np.array([32, 64, 20, 64])
    expected = (2 * lengths + lengths**2 / 100).sum() / lengths.sum()
    typical = (lengths**2).sum() / lengths.sum()
    assert pass_speed.token_seconds(load(), 64, typical) == pytest.approx(expected, rel=1e-12)


def test_a_model_that_works_in_place_on_its_embeddings_is_measured(tmp_path, small_tokenizer):
    family = next(family for family in FAMILIES if family.kind == "ctrl")
    family.model().save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    model = TrackedModel.load(ModelConfig(name=str(tmp_path), device="cpu"))
    assert token_bytes(model, 64).saved > 0
    assert pass_speed.token_seconds(model, 64, 61.3) > 0


def test_choices_of_layers_are_told_apart_by_what_the_layers_cost(load):
    """Passes are those of the model: measured once, not anew for each choice, they do not wobble between them."""
    model = load()
    other = TrackedModel.of(model.loaded, ModelConfig(name="the same", layers="mlp"))
    assert pass_speed.token_seconds(model, 40, 33.5) == pass_speed.token_seconds(other, 40, 33.5)


def test_each_attention_is_measured_by_itself(load, monkeypatch):
    model, runs = load(), []
    monkeypatch.setattr(pass_speed, "fastest", lambda _work, _device: float(len(runs.append(None) or runs)))
    first = pass_speed.token_seconds(model, 40, 33.5)
    assert pass_speed.token_seconds(model, 40, 33.5) == first and len(runs) == 1
    model.loaded.model.set_attn_implementation("eager")
    assert pass_speed.token_seconds(model, 40, 33.5) == 2 * first and len(runs) == 2
