"""Which layers an index tracks, how that is kept through its life, and how it is told."""

import json
import shutil

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)
from transformers.models.llama.modeling_llama import LlamaMLP

from gindex import GradientIndex
from gindex.build.run import plan_build, run_build
from gindex.errors import ConfigError, MismatchError
from gindex.model.tracked_model import TrackedModel
from gindex.store.files import write_json
from gindex.store.layout import Layout
from tests.support.objectives import ids_of

PROMPT, COMPLETION = "the compiler race", " bug the stack"
BLOCK = "model.layers.0."


def hits(index: GradientIndex, **more: object) -> list[tuple[str, int, float]]:
    found = index.search(PROMPT, COMPLETION, k=10_000, **more).hits
    return [(hit.document_id, hit.part, hit.score if hit.influence is None else hit.influence) for hit in found]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, corpus_file, make_config):
    """An index over all layers but those of the first block, of which one is taken all the same."""
    folder = tmp_path_factory.mktemp("chosen") / "index"
    config = make_config(untrack=(f"{BLOCK}*",), track=("*.0.mlp.down_proj",))
    return GradientIndex.build([str(corpus_file)], folder, config)


def test_the_choice_is_kept_by_search_add_and_a_repeated_build(chosen, tmp_path, corpus_file, make_config):
    names = [layer.name for layer in chosen.manifest.layers]
    assert len(names) == 8 and [name for name in names if name.startswith(BLOCK)] == [f"{BLOCK}mlp.down_proj"]
    assert [layer.name for layer in GradientIndex.open(chosen.path).model.tracked.table] == names
    more = tmp_path / "more.jsonl"
    more.write_text('{"id": "n1", "text": "the compiler race bug the stack"}\n')
    grown = GradientIndex.open(shutil.copytree(chosen.path, tmp_path / "index"))
    grown.add([str(more)])
    assert "n1" in [name for name, *_ in hits(grown.refresh(), exact=True, candidates=10_000)]
    config = make_config(untrack=(f"{BLOCK}*",), track=("*.0.mlp.down_proj",))
    assert run_build([str(corpus_file)], chosen.path, config).version == 1
    assert json.loads(next(chosen.path.glob("manifests/*.json")).read_text())["settings"]["model"]["untrack"] == [
        f"{BLOCK}*"
    ]


def test_exact_influence_is_that_of_the_chosen_layers(chosen, built, corpus_file, make_config):
    """Both fit the same covariances and eigenvalues layer by layer, so the parts add up layer by layer."""
    whole = GradientIndex.open(built).explain("d3", PROMPT, COMPLETION)
    some = chosen.explain("d3", PROMPT, COMPLETION)
    assert len(some.layers) == 8
    for name, influence in some.layers.items():
        assert influence == pytest.approx(whole.layers[name], rel=1e-3, abs=1e-3 * max(map(abs, whole.layers.values())))


def test_a_pattern_that_matches_nothing_stops_the_build(corpus_file, make_config, tmp_path):
    with pytest.raises(ConfigError, match=r"`untrack` lm_tail: expected the name of a layer or a pattern"):
        run_build([str(corpus_file)], tmp_path / "index", make_config(untrack=("lm_tail",)))


def edited(index, folder, change):
    """Copy an index, change its manifest as plain values, and seal it anew."""
    shutil.copytree(index, folder)
    path = Layout(folder).manifest(1)
    content = json.loads(path.read_text())
    del content["crc32c"]
    change(content)
    write_json(path, content)
    return GradientIndex.open(folder)


def test_an_index_that_tells_nothing_of_the_body_opens_and_answers_as_before(built, tmp_path):
    def older(content):
        del content["model"]["body_parameters"], content["model"]["tracked_body_parameters"]
        for weight in content["untracked"]:
            del weight["body"]

    index = edited(built, tmp_path / "older", older)
    assert hits(index) == hits(GradientIndex.open(built))
    coverage = index.info()["coverage"]
    assert (coverage["of"], round(coverage["share"], 3), coverage["warning"]) == ("model", 0.529, None)


def test_a_layer_that_cannot_be_used_as_it_was_is_named(built, tmp_path):
    def renamed(content):
        content["layers"][3]["source"] = content["layers"][0]["name"]

    with pytest.raises(
        MismatchError, match=r"expected the layer model\.layers\.0\.self_attn\.o_proj that the index was"
    ):
        edited(built, tmp_path / "other", renamed).search(PROMPT, COMPLETION)


def test_what_is_untracked_is_told_by_info_results_and_plan(built, corpus_file, make_config):
    index = GradientIndex.open(built)
    coverage, model = index.info()["coverage"], index.manifest.model
    embedding, norms = coverage["untracked"]
    assert embedding["share"] is None and embedding["weights"] == "model.embed_tokens.weight"
    assert (norms["count"], norms["parameters"]) == (5, 80)
    assert coverage["share"] == 1 - norms["share"] == model.tracked_body_parameters / model.body_parameters
    assert model.body_parameters == model.parameters - embedding["parameters"]
    result = index.search(PROMPT, COMPLETION)
    assert result.coverage == index.manifest.coverage and result.coverage.record() == coverage
    assert plan_build([str(corpus_file)], make_config()).coverage == index.manifest.coverage


# Families


def saved(folder, model, tokenizer):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_what_is_left_out_is_named_and_little_is_said_aloud(run, tmp_path, small_tokenizer, corpus_file):
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=len(small_tokenizer), hidden_size=16, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=4, max_position_embeddings=64,
    )  # fmt: skip
    name, out = saved(tmp_path / "model", MixtralForCausalLM(config), small_tokenizer), tmp_path / "index"
    options = ("--max-tokens", 32, "--fit-documents", 20, "--dimension", 512, "--rank-fraction", 0.5)
    options += ("--untrack", "*.mlp.*")
    result = run("build", corpus_file, "--model", name, "--out", out, "--index-damping", 10, *options)
    assert result.exit_code == 0, result.output
    coverage = GradientIndex.open(out).info()["coverage"]
    assert coverage["share"] < 0.2
    assert "experts.gate_up_proj" in coverage["untracked"][0]["weights"]
    assert coverage["untracked"][0]["reason"] == "left out by `untrack`"
    warning = (
        f"only {coverage['share']:.1%} of the model's body is tracked: influence through the rest is not seen; the "
    )
    assert coverage["warning"].startswith(warning)
    searched = run("search", out, PROMPT, "--completion", COMPLETION, "-k", 1)
    as_json = run("search", out, PROMPT, "--completion", COMPLETION, "-k", 1, "--json")
    assert json.loads(as_json.stdout)["coverage"] == coverage
    for output in (result.stderr, searched.stderr, run("info", out).stdout):
        assert warning in output


def test_opt_is_exact_in_its_feed_forward_layers(tmp_path, small_tokenizer, corpus_file, make_config):
    """Reference: autograd's gradients, one text at a time, with no curvature between them."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=len(small_tokenizer), hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2,
        word_embed_proj_dim=16, max_position_embeddings=64, dropout=0.0,
    )  # fmt: skip
    model = OPTForCausalLM(config)
    name = saved(tmp_path / "model", model, small_tokenizer)
    settings = make_config(name=name, curvature="identity", fit_documents=10)
    index = GradientIndex.build([str(corpus_file)], tmp_path / "index", settings)
    layers = [layer.name for layer in index.manifest.layers]
    assert [layer.rpartition(".")[2] for layer in layers[-2:]] == ["fc1", "fc2"]
    model = OPTForCausalLM.from_pretrained(name).eval()
    parameters = [p for layer in layers for p in model.get_submodule(layer).parameters()]
    assert_influence_is_autograds(index, "d147", model, parameters, small_tokenizer)


def assert_influence_is_autograds(index, document, model, parameters, tokenizer):
    """Reference: gradients of the query and of the document of one part, each alone."""

    def gradient(tokens, first):
        logits = model(torch.tensor([[int(token) for token in tokens]])).logits[0].log_softmax(1)
        loss = -sum(logits[t - 1, int(tokens[t])] for t in range(first, len(tokens)))
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])

    (part,) = map(ids_of, index.objectives(document))
    prompt = tokenizer(PROMPT).input_ids
    query = gradient(prompt + tokenizer(COMPLETION).input_ids, len(prompt))
    expected = float(query @ gradient(part, 1))
    assert index.explain(document, PROMPT, COMPLETION).influence == pytest.approx(expected, rel=1e-3)


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "tie_word_embeddings": True}
MODELS = {
    "Llama": lambda vocabulary: LlamaForCausalLM(
        LlamaConfig(vocab_size=vocabulary, intermediate_size=24, num_attention_heads=2, **SMALL)
    ),
    "Mamba": lambda vocabulary: MambaForCausalLM(MambaConfig(vocab_size=vocabulary, state_size=4, **SMALL)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_everything_is_exact_in_norms_and_small_parameters_too(
    kind, tmp_path, small_tokenizer, corpus_file, make_config
):
    torch.manual_seed(0)
    model = MODELS[kind](len(small_tokenizer))
    name = saved(tmp_path / "model", model, small_tokenizer)
    config = make_config(name=name, layers="everything", curvature="identity", fit_documents=10)
    plan = plan_build([str(corpus_file)], config)
    assert plan.coverage.share == 1 and plan.kinds["norms"].tracked == plan.kinds["norms"].parameters > 0
    index = GradientIndex.build([str(corpus_file)], tmp_path / "index", config)
    assert index.manifest.settings.model.settings()["layers"] == "everything"
    names = [layer.name for layer in index.manifest.layers]
    model = type(model).from_pretrained(name).eval()
    of_model = dict(model.named_parameters())
    weights = {n: p for n, p in of_model.items() if n in names or n.rpartition(".")[0] in names}
    body = {n for n in of_model if "embed" not in n and "lm_head" not in n}
    assert weights.keys() >= body
    assert len(hits(GradientIndex.open(index.path), exact=True, candidates=5)) > 100
    assert_influence_is_autograds(index, "d147", model, list(weights.values()), small_tokenizer)


def test_the_mlp_alone_is_an_index_of_its_own(built, corpus_file, make_config, tmp_path):
    """Factors are fitted layer by layer: influence is the part of the MLP's layers."""
    index = GradientIndex.build([str(corpus_file)], tmp_path / "index", make_config(layers="mlp"))
    assert {layer.name.split(".")[3] for layer in index.manifest.layers} == {"mlp"}
    whole = GradientIndex.open(built).explain("d3", PROMPT, COMPLETION)
    for name, influence in index.explain("d3", PROMPT, COMPLETION).layers.items():
        assert influence == pytest.approx(whole.layers[name], rel=1e-3, abs=1e-3 * max(map(abs, whole.layers.values())))


def test_a_state_space_model_in_bfloat16(tmp_path, small_tokenizer, corpus_file, make_config):
    """Its residual stream stays in float32 in front of a head in bfloat16."""
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=len(small_tokenizer), hidden_size=16, state_size=4, num_hidden_layers=2)
    name = saved(tmp_path / "model", MambaForCausalLM(config), small_tokenizer)
    found = {}
    for dtype in ("float32", "bfloat16"):
        settings = make_config(name=name, dtype=dtype, curvature="identity", fit_documents=10)
        index = GradientIndex.build([str(corpus_file)], tmp_path / dtype, settings)
        assert index.model.tracked.task.head is not None
        found[dtype] = index.explain("d5", PROMPT, COMPLETION).influence
    # Two passes of bfloat16 through two blocks: some per cent.
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.1)


def test_a_wide_head_costs_nothing_by_default(tmp_path, small_tokenizer, corpus_file, make_config, make_small_model):
    """A vocabulary of 9,000, untied: with `track` its weights count, and no covariance of 324 MB."""
    config = make_small_model(9000).config
    config.tie_word_embeddings = False
    name = saved(tmp_path / "model", LlamaForCausalLM(config), small_tokenizer)
    default = plan_build([str(corpus_file)], make_config(name=name))
    wanted = plan_build([str(corpus_file)], make_config(name=name, track=("lm_head",)))
    assert wanted.tracked_layers == default.tracked_layers + 1
    assert default.memory_bytes < wanted.memory_bytes < default.memory_bytes + 324e6
    # Lambda, and one matrix for the hidden states, 16 wide.
    assert wanted.disk_bytes["factors"] == default.disk_bytes["factors"] + 4 * (9000 * 16 + 16 * 16)
    assert wanted.structures == {"9,000 in unit vectors": 1} and not default.structures
    assert wanted.coverage.share == default.coverage.share


def test_a_convolution_of_more_positions_than_tokens_is_left_out_with_the_reason(
    tmp_path, model_folder, corpus_file, make_config, monkeypatch
):
    """It is padded on both sides and cut off, as causal ones are; which positions are padding only its model knows."""
    make, plain = LlamaMLP.__init__, LlamaMLP.forward

    def with_convolution(self, config):
        make(self, config)
        self.mixer = nn.Conv1d(config.hidden_size, config.hidden_size, 3, padding=2)

    def mixed(self, x):
        return plain(self, x + self.mixer(x.mT)[..., : x.shape[1]].mT)

    monkeypatch.setattr(LlamaMLP, "__init__", with_convolution)
    monkeypatch.setattr(LlamaMLP, "forward", mixed)
    torch.manual_seed(0)
    LlamaForCausalLM(AutoConfig.from_pretrained(model_folder)).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path / "model")
    config = make_config(name=str(tmp_path / "model"), fit_documents=8, limit=12)
    reasons = {of.name: of.reason for of in TrackedModel.load(config.model).table.untracked}
    assert "it has 5 positions for a text of 3 tokens" in reasons["model.layers.0.mlp.mixer.weight"]
    index = GradientIndex.build([str(corpus_file)], tmp_path / "index", config)
    assert not any("mixer" in layer.name for layer in index.manifest.layers)
