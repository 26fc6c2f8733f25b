"""`check_model` says go of models that are right, and no, with the reason, of those that a build must not take."""

import copy
import json
import shutil

import pytest
from families import FAMILIES
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP

from gindex import BuildConfig, ModelCheck, ModelConfig, check_model
from gindex.build.run import plan_build
from gindex.check.cost import MADE_DOCUMENTS
from gindex.check.result import NO, NOT_TRIED, VERDICTS, WARNING, Finding
from gindex.errors import ModelError

SECTIONS = ["model", "coverage", "gradients", "causality", "attention", "precision", "speed", "cost"]


def test_a_model_that_is_right_gets_a_go(checked):
    assert checked.go and checked.exit_code == 0
    assert checked.conclusion.startswith("go")
    assert list(dict.fromkeys(finding.section for finding in checked.findings)) == SECTIONS
    assert {finding.verdict for finding in checked.findings} <= set(VERDICTS) - {NO}
    assert checked.dtype == "float32" and checked.device == "cpu"


def test_errors_are_of_rounding_and_so_is_what_neighbours_change(checked, finding):
    assert finding(checked, "gradients", "autograd").figures["error"] < 1e-5
    assert finding(checked, "gradients", "autograd").figures["documents"] == 3
    assert finding(checked, "gradients", "batch").figures["difference"] < 1e-4
    assert finding(checked, "causality", "later tokens").figures["difference"] < 1e-4
    assert finding(checked, "attention", "eager").figures["difference"] < 1e-4
    assert finding(checked, "precision", "float32").figures["cosine"] == pytest.approx(1, abs=1e-12)
    assert 0.98 < finding(checked, "precision", "bfloat16").figures["cosine"] < 1 - 1e-7


def test_costs_are_those_of_a_dry_run(checked, finding, make_config, corpus_file):
    plan, cost = plan_build([str(corpus_file)], make_config()), finding(checked, "cost", "all-linear, asked").figures
    assert (cost["documents"], cost["tokens"]) == (plan.documents, plan.tokens)
    assert cost["disk_bytes"] == sum(plan.disk_bytes.values())
    assert cost["memory_bytes"] == plan.memory_bytes
    assert cost["share"] == plan.coverage.share == finding(checked, "coverage", "body").figures["share"]


def test_every_preset_has_its_cost(checked, finding, make_config, corpus_file):
    """The same as a dry run with that preset; one that the model has no layers for is no reason against it."""
    for layers in ("attention", "everything"):
        plan = plan_build([str(corpus_file)], make_config(layers=layers))
        cost = finding(checked, "cost", layers).figures
        assert cost["disk_bytes"] == sum(plan.disk_bytes.values()) and cost["share"] == plan.coverage.share


def test_a_preset_without_layers_is_no_reason_against_a_model(tmp_path, small_tokenizer, finding):
    next(family for family in FAMILIES if family.name == "Mamba").model().save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    check = check_model(BuildConfig(model=ModelConfig(name=str(tmp_path), device="cpu")))
    assert check.go and finding(check, "cost", "mlp").verdict == NOT_TRIED
    assert "a model with mlp layers" in finding(check, "cost", "mlp").found


def test_a_model_that_reads_whole_texts_is_not_tried_for_causality(tmp_path, small_tokenizer, finding):
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.save_pretrained(tmp_path)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(
        tmp_path
    )
    check = check_model(BuildConfig(model=ModelConfig(name=str(tmp_path), device="cpu")))
    assert check.go and finding(check, "causality", "later tokens").verdict == NOT_TRIED
    assert finding(check, "gradients", "autograd").figures["error"] < 1e-5
    assert finding(check, "gradients", "batch").figures["difference"] < 1e-4


def test_without_a_corpus_documents_are_made_up(make_config, finding):
    check = check_model(make_config())
    assert check.go
    assert finding(check, "cost", "all-linear, asked").figures["documents"] == MADE_DOCUMENTS


def test_experts_and_routers_are_told_apart(tmp_path, small_tokenizer, finding):
    next(family for family in FAMILIES if family.name == "Mixtral").model().save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    check = check_model(BuildConfig(model=ModelConfig(name=str(tmp_path), device="cpu")))
    assert check.go
    for kind, weights in (("experts", 2 * 4 * 3 * 48 * 32), ("routers", 2 * 4 * 32)):
        assert finding(check, "coverage", kind).figures["weights"] == weights
        assert finding(check, "coverage", kind).figures["share"] == 1


def refused(check: ModelCheck, section: str, name: str) -> Finding:
    """Return the finding that stands against a build, which the conclusion names with its remedy."""
    first = next(check.of(NO))
    assert (first.section, first.name) == (section, name)
    assert not check.go and check.exit_code == ModelError.exit_code
    assert check.conclusion.startswith(f"no: {section}, {name}: {first.found}") and first.remedy in check.conclusion
    return first


def test_attention_that_looks_ahead_is_a_no(make_config, monkeypatch):
    plain = LlamaAttention.forward

    def look_ahead(self, hidden_states, *args, **kwargs):
        return plain(self, hidden_states + 0.1 * hidden_states.roll(-1, 1), *args, **kwargs)

    monkeypatch.setattr(LlamaAttention, "forward", look_ahead)
    assert "a later token changes" in refused(check_model(make_config()), "model", "load").found


def test_a_layer_that_leaves_its_bias_out_in_long_documents_is_a_no(make_config, monkeypatch):
    """The few tokens that a model is loaded with do not show it; documents do."""
    plain = nn.Linear.forward

    def without_bias(self, x):
        return plain(self, x) if self.bias is None or x.shape[1] < 25 else x @ self.weight.T

    monkeypatch.setattr(nn.Linear, "forward", without_bias)
    found = refused(check_model(make_config()), "gradients", "autograd")
    assert found.figures["layer"].rpartition(".")[2] in ("q_proj", "k_proj", "v_proj", "o_proj")
    assert found.figures["error"] > 0.01


def test_documents_that_mix_in_their_batch_are_a_no(make_config, monkeypatch, finding):
    plain = LlamaMLP.forward

    def mixing(self, x):
        return plain(self, x) + (0.1 * x.mean(0) if x.shape[1] > 32 else 0)

    monkeypatch.setattr(LlamaMLP, "forward", mixing)
    check = check_model(make_config())
    assert "together and alone" in finding(check, "gradients", "batch").found
    assert finding(check, "gradients", "batch").verdict == NO and not check.go


def test_what_a_build_refuses_is_a_finding_with_its_words(make_config, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    found = refused(check_model(make_config(name=str(folder))), "model", "load")
    assert "model.layers.1.mlp.up_proj.weight" in found.found and found.remedy
    assert check_model(make_config(), [str(tmp_path / "nowhere.jsonl")]).exit_code == 4
    assert check_model(make_config(max_tokens=65)).exit_code == 2


def test_little_coverage_and_far_formats_are_warnings(make_config, finding):
    check = check_model(make_config(untrack=("*.mlp.*", "lm_head"), dtype="bfloat16"))
    assert check.go and check.conclusion.startswith("go, with ") and "influence through its mlp" in check.conclusion
    assert finding(check, "coverage", "body").verdict == finding(check, "coverage", "mlp").verdict == WARNING
    assert "left out by `untrack`" in finding(check, "coverage", "mlp").found


def test_the_record_is_json_of_plain_values(checked):
    record = json.loads(json.dumps(checked.record(), allow_nan=False))
    assert set(record) == {
        "model", "device", "dtype", "seconds", "go", "exit_code", "conclusion", "findings"
    }  # fmt: skip
    for finding in record["findings"]:
        assert set(finding) == {"section", "name", "found", "verdict", "remedy", "figures"}
        assert finding["section"] in SECTIONS and finding["verdict"] in VERDICTS
