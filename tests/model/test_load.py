"""Fingerprints name weights, whatever number format they are loaded in."""

import os

import pytest
import torch

from gindex.config import ModelConfig
from gindex.errors import ModelError
from gindex.model import load
from gindex.model.device_choice import fast_bfloat16, pick_device
from gindex.model.fingerprints import FINGERPRINT_VALUES, fingerprint_buffers, fingerprint_model
from gindex.model.load import PRIMITIVES, load_model


@pytest.fixture
def wide() -> torch.nn.Module:
    """A layer with more weights than enter the fingerprint, all of them exact in bfloat16."""
    layer = torch.nn.Linear(FINGERPRINT_VALUES, 3)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
        layer.bias.copy_(layer.bias.bfloat16())
    return layer


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_number_format_leaves_the_fingerprint_as_it_is(wide, dtype):
    before = fingerprint_model(wide)
    assert fingerprint_model(wide.to(dtype)) == before


def test_a_changed_weight_or_name_changes_the_fingerprint(wide):
    before = fingerprint_model(wide)
    assert fingerprint_model(torch.nn.Sequential(wide)) != before
    with torch.no_grad():
        wide.bias[1] += 1
    assert fingerprint_model(wide) != before


def test_stored_buffers_have_a_fingerprint_of_their_own(wide):
    assert fingerprint_buffers(wide) == ""
    wide.register_buffer("angles", torch.ones(3), persistent=False)  # made anew with the model: nothing to tell apart
    assert fingerprint_buffers(wide) == ""
    weights = fingerprint_model(wide)
    wide.register_buffer("router_bias", torch.ones(3))
    before = fingerprint_buffers(wide)
    wide.router_bias[0] = 2
    assert fingerprint_buffers(wide) != before != ""
    assert fingerprint_model(wide) == weights  # what an older index recorded


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_models_load_in_the_format_asked_for(model_folder, dtype):
    loaded = load_model(ModelConfig(name=str(model_folder), device="cpu", dtype=dtype))
    assert {str(parameter.dtype) for parameter in loaded.model.parameters()} == {f"torch.{dtype}"}
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.mark.parametrize("name", ["meta", "cuda:99", "tpu-9", ""])
def test_a_device_that_cannot_compute_is_refused(name):
    with pytest.raises(ModelError, match="device"):
        pick_device(name)


@pytest.mark.parametrize(
    ("x86", "amx", "mkldnn", "fast"),
    [(True, True, True, True), (True, False, True, False), (False, False, True, True), (False, False, False, False)],
)
def test_bfloat16_is_taken_where_it_is_faster(monkeypatch, x86, amx, mkldnn, fast):
    monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: x86)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(load.torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: mkldnn)
    assert fast_bfloat16(torch.device("cpu")) is fast
    assert fast_bfloat16(torch.device("cuda"))


@pytest.mark.parametrize("given", [None, "77"])
def test_few_compiled_products_are_kept_unless_the_user_says_how_many(model_folder, monkeypatch, given):
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv(name)
    load_model(ModelConfig(name=str(model_folder), device="cpu"))
    assert os.environ[name] == (given or str(PRIMITIVES))
