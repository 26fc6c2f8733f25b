"""Adapters on quantised bases: gradients against autograd through the same quantised layers, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import adapter_gradients, lora, write_adapter
from against_autograd import documents, gradients, relative_error
from model_folders import edit
from probes import reasons
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

from gindex import GradientIndex
from gindex.config import ModelConfig
from gindex.errors import ConfigError, MissingDependencyError, ModelError
from gindex.model.quantisation import check_backward, keep_differentiable
from gindex.model.tracked_model import TrackedModel

TOLERANCE = 1e-5
"""Of float32, in which the quantised layers run: documents in a padded batch and alone round otherwise."""


def _torchao(name: str, **settings: Any) -> Any:
    quantization = pytest.importorskip("torchao.quantization", reason="needs torchao")
    return TorchAoConfig(getattr(quantization, name)(**settings))


def _four_bits() -> Any:
    granularity = pytest.importorskip("torchao.quantization.granularity", reason="needs torchao")
    return _torchao("IntxWeightOnlyConfig", weight_dtype=torch.int4, granularity=granularity.PerGroup(32))


def _bitsandbytes(**settings: Any) -> Any:
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    return BitsAndBytesConfig(**settings)


METHODS: dict[str, Callable[[], Any]] = {
    "bitsandbytes, 8 bits": lambda: _bitsandbytes(load_in_8bit=True),
    "bitsandbytes, 4 bits": lambda: _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes, 4 bits twice": lambda: _bitsandbytes(load_in_4bit=True, bnb_4bit_use_double_quant=True),
    "torchao, 8 bits": lambda: _torchao("Int8WeightOnlyConfig"),
    "torchao, 4 bits": _four_bits,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_tokenizer) -> Path:
    """A Llama of width 64, which groups of 32 and blocks of 64 divide."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("whole")
    LlamaForCausalLM(config).save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    return folder


def quantise(whole: Path, folder: Path, small_tokenizer: Any, method: str) -> Path:
    model = AutoModelForCausalLM.from_pretrained(whole, quantization_config=METHODS[method](), dtype=torch.float32)
    model.save_pretrained(folder)
    small_tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path, **options: Any) -> TrackedModel:
    return TrackedModel.load(ModelConfig(name=str(folder), device="cpu", dtype="float32", **options))


@pytest.mark.parametrize(
    ("method", "dora"),
    [*((method, False) for method in METHODS), ("bitsandbytes, 4 bits", True), ("torchao, 8 bits", True)],
)
def test_gradients_of_the_adapter_equal_autograd_through_the_quantised_layers(
    whole, tmp_path, small_tokenizer, method, dora
):
    base = quantise(whole, tmp_path / "base", small_tokenizer, method)
    reference = write_adapter(base, tmp_path / "adapter", lora(use_dora=dora))
    keep_differentiable(reference)
    engine = load(tmp_path / "adapter")
    assert len(engine.table) == 2 * (9 if dora else 6) and engine.dtype == torch.float32
    assert "quantised" in reasons(engine.table)["model.layers.0.mlp.up_proj.weight"]
    tokens = documents(250)
    expected = [adapter_gradients(reference, engine.table.layers, part) for part in tokens]
    assert relative_error(gradients(engine, tokens), expected) < TOLERANCE
    assert relative_error([gradients(engine, [part])[0] for part in tokens], expected) < TOLERANCE
    with pytest.raises(ConfigError, match=r"expected a layer that can be tracked, found .*: its weight is quantised"):
        load(tmp_path / "adapter", track=("*.q_proj.base_layer",))


@pytest.mark.parametrize("method", ["bitsandbytes, 4 bits", "torchao, 8 bits"])
def test_an_index_of_an_adapter_on_a_quantised_base_is_built_and_searched(
    whole, tmp_path, small_tokenizer, method, corpus_file, make_config
):
    base = quantise(whole, tmp_path / "base", small_tokenizer, method)
    write_adapter(base, tmp_path / "adapter", lora())
    out = tmp_path / "index"
    GradientIndex.build([str(corpus_file)], out, make_config(name=str(tmp_path / "adapter"), fit_documents=10))
    index = GradientIndex.open(out, device="cpu")
    assert index.manifest.model.dtype == "float32"
    hits = index.search("the compiler race", " bug the stack", k=3, exact=True).hits
    assert len(hits) == 3 and all(hit.influence is not None for hit in hits)


class _Lossy(nn.Linear):
    """A layer of 8-bit weights, whose backward pass can be lost, fail, or be another's."""

    fault = ""

    def __init__(self) -> None:
        super().__init__(8, 6)
        self.weight = nn.Parameter(torch.randint(-9, 9, (6, 8), dtype=torch.int8), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _Product.apply(x, self.weight.float(), self.fault) + self.bias
        return y


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, fault: str) -> torch.Tensor:
        ctx.fault = fault
        ctx.save_for_backward(weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        if ctx.fault == "fails":
            raise RuntimeError("no derivative for int8_mm")
        (weight,) = ctx.saved_tensors
        gradient = upstream[0] @ weight
        return {"": gradient, "another": gradient.flip(1), "lost": None}[ctx.fault], None, None


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("fails", r"that the backward pass fails \(no derivative for int8_mm\) in 0"),
        ("lost", "that no gradient comes back in 0"),
        ("another", "that the gradient is not that of the forward pass in 0"),
    ],
)
def test_quantised_layers_without_a_right_backward_pass_are_refused_by_name(fault, message):
    torch.manual_seed(0)
    model = nn.Sequential(_Lossy())
    check_backward("base", model)
    model[0].fault = fault
    with pytest.raises(
        ModelError, match=f"base: expected quantised layers that gradients pass through, found {message}"
    ):
        check_backward("base", model)


def test_bases_quantised_for_inference_alone_or_without_their_package_are_refused(model_folder, tmp_path, monkeypatch):
    write_adapter(model_folder, tmp_path / "adapter", lora())
    base = tmp_path / "base"
    base.mkdir()
    for file in model_folder.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    edit(base, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match=r"quantised by gptq .*made for inference alone; .*`base`"):
        load(tmp_path / "adapter", base=str(base))
    edit(base, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    monkeypatch.setattr("gindex.model.quantisation.find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match="bitsandbytes, which it is quantised by, found none; pip install"):
        load(tmp_path / "adapter", base=str(base))
