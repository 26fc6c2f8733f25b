"""Code of a model's own: it runs only where it is trusted, and what it makes is there."""

import json
import sys
from pathlib import Path

import pytest
import torch
from model_folders import edit, load, refused
from transformers import AutoModelForCausalLM

CODE = """
import pathlib
from transformers import LlamaConfig, LlamaForCausalLM
pathlib.Path({sprung!r}).touch()
class OwnConfig(LlamaConfig):
    model_type = "own-llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(folder, tmp_path, monkeypatch) -> Path:
    """A folder whose model is a class of its own, which leaves a file `sprung` where it runs."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (folder / "own.py").write_text(CODE.format(sprung=str(tmp_path / "sprung")))
    edit(
        folder,
        model_type="own-llama",
        architectures=["OwnModel"],
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    return folder


def test_code_of_its_own_runs_only_where_it_is_trusted(own_code, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the terminal was asked"))
    assert "`trust_remote_code`" in refused(own_code)
    assert not (tmp_path / "sprung").exists()
    loaded = load(own_code, trust_remote_code=True)
    assert (tmp_path / "sprung").exists()
    assert type(loaded.model).__name__ == "OwnModel" and len(loaded.code) == 64
    (own_code / "own.py").write_text((own_code / "own.py").read_text() + "# changed\n")
    assert load(own_code, trust_remote_code=True).code != loaded.code
    assert "`trust_remote_code`" in refused(own_code)  # not even now that it has run


def test_a_tokenizer_with_code_of_its_own_runs_only_where_it_is_trusted(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (folder / "own.py").write_text(
        "from transformers import PreTrainedTokenizerFast\n"
        f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n"
        "class Own(PreTrainedTokenizerFast): pass\n"
    )
    path = folder / "tokenizer_config.json"
    changes = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert "`trust_remote_code`" in refused(folder)
    assert not (tmp_path / "sprung").exists()
    assert type(load(folder, trust_remote_code=True).tokenizer).__name__ == "Own"
    assert (tmp_path / "sprung").exists()


BUFFERS = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own-llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("scale", torch.full((1,), 3.0), persistent=False)
        self.shift = torch.full((1,), 0.5)
        self.post_init()
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * self.scale + self.shift
        return output
"""


def test_what_a_class_of_its_own_makes_beside_weights_is_there(own_code):
    """transformers leaves such buffers uninitialised, and such tensors without memory."""
    edit(own_code, model_type="llama", auto_map={})
    plain = load(own_code).model
    edit(
        own_code,
        model_type="own-llama",
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    (own_code / "own.py").write_text(BUFFERS)
    loaded, tokens = load(own_code, trust_remote_code=True).model, torch.arange(1, 9)[None]
    assert loaded.scale.tolist() == [3.0]
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, 3 * plain(tokens).logits + 0.5)


def test_where_transformers_has_the_class_code_beside_it_stays_unread(own_code, tmp_path):
    expected = AutoModelForCausalLM.from_pretrained(own_code, trust_remote_code=True)
    (tmp_path / "sprung").unlink()
    edit(own_code, model_type="llama")
    loaded, tokens = load(own_code), torch.arange(1, 9)[None]
    assert loaded.code == "transformers" and not (tmp_path / "sprung").exists()
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(tokens).logits, expected.eval()(tokens).logits)
