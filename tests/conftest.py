"""A small model, tokenizer and corpus that the tests share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from gindex_cli.commands import gindex
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gindex import BuildConfig, CorpusConfig, CurvatureConfig, GradientIndex, ModelConfig, VectorConfig
from tests.support.chat_templates import CHATML

# fmt: off
WORDS = [
    "the", "a", "compiler", "kernel", "stack", "heap", "lock", "thread", "race", "cache",
    "page", "file", "disk", "bug", "patch", "test", "loop", "parser", "token",
]
# fmt: on


def sentences(count: int, seed: int = 0) -> list[str]:
    """Return `count` random sentences of different lengths over a small vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for _ in range(count):
        length = int(torch.randint(3, 24, (1,), generator=generator))
        texts.append(" ".join(WORDS[n] for n in torch.randint(len(WORDS), (length,), generator=generator)))
    return texts


def make_tokenizer() -> Any:
    """Train a byte-pair tokenizer on the small vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(sentences(200), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def make_model(vocabulary: int, *, bias: bool = True, seed: int = 0) -> LlamaForCausalLM:
    """Make a two-block Llama with random weights, tied embeddings, and biases in attention where asked."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_bias=bias,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero, and the initial weights are small
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the small model with its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """Folder of the small model with marks of turns in its vocabulary, and a template that marks no generation."""
    folder = tmp_path_factory.mktemp("chat-model")
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    torch.manual_seed(3)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.max_position_embeddings = 256
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JSON lines of 150 documents: one of two tokens, two of equal text, one of many parts, metadata in all."""
    texts = [*sentences(146), "a a", "the stack the heap", "the stack the heap", " ".join(sentences(12, seed=1))]
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    lines = [json.dumps({"id": f"d{n}", "text": text, "number": n}) for n, text in enumerate(texts)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def make_config(model_folder: Path) -> Callable[..., BuildConfig]:
    """Settings of a build that takes a second; any setting can be given by its name."""
    settings = {
        "name": str(model_folder),
        "device": "cpu",
        "max_tokens": 32,
        "fit_documents": 40,
        "dimension": 512,
        "rank_fraction": 0.5,
        "index_damping": 10.0,
    }

    def make(**changes: Any) -> BuildConfig:
        left = settings | changes

        def pick(config: type) -> Any:
            return config(**{name: left.pop(name) for name in config.__dataclass_fields__ if name in left})

        components = {
            "corpus": pick(CorpusConfig),
            "model": pick(ModelConfig),
            "curvature": pick(CurvatureConfig),
            "vectors": pick(VectorConfig),
        }
        return BuildConfig(**components, **left)

    return make


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, make_config: Callable[..., BuildConfig]) -> Path:
    """Folder of a finished index over the small corpus; copy it before changing anything in it."""
    folder = tmp_path_factory.mktemp("built") / "index"
    GradientIndex.build([str(corpus_file)], folder, make_config())
    return folder


@pytest.fixture(scope="session")
def index(built: Path) -> GradientIndex:
    """The same, opened."""
    return GradientIndex.open(built, device="cpu")


SOURCES = [
    {"source": "web", "tags": ["a", "b"]},
    {"source": "web", "tags": ["b", "b"], "mark": 1},
    {"source": "books", "tags": [], "mark": 1.0},
    {"source": None, "tags": "a", "mark": True},
    {"origin": {"site": "x", "page": 3}, "mark": "1"},
    {"source": "books", "origin": {"page": 3, "site": "x"}, "tags": ["a", None, ["c"]]},
]
"""Metadata of documents, in turn: texts, nothing, null, arrays, fields within fields, and values that look alike."""


@pytest.fixture(scope="session")
def sourced(
    tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, make_config: Callable[..., BuildConfig]
) -> Path:
    """Folder of an index over the small corpus with the metadata of `SOURCES`; d8 has a source alone, d3 is deleted."""
    folder = tmp_path_factory.mktemp("sourced")
    lines = []
    for number, line in enumerate(corpus_file.read_text().splitlines()):
        record = json.loads(line) | SOURCES[number % len(SOURCES)]
        lines.append(json.dumps(record | {"source": "lone"} if number == 8 else record))
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    index = GradientIndex.build([str(folder / "corpus.jsonl")], folder / "index", make_config())
    index.delete(["d3"])
    return folder / "index"


@pytest.fixture(scope="session")
def chat_built(
    tmp_path_factory: pytest.TempPathFactory,
    corpus_file: Path,
    chat_model: Path,
    make_config: Callable[..., BuildConfig],
) -> Path:
    """Folder of a finished index of the model with a chat template."""
    folder = tmp_path_factory.mktemp("chat-built") / "index"
    GradientIndex.build([str(corpus_file)], folder, make_config(name=str(chat_model)))
    return folder


@pytest.fixture(scope="session")
def chat_index(chat_built: Path) -> GradientIndex:
    """The same, opened."""
    return GradientIndex.open(chat_built, device="cpu")


@pytest.fixture(scope="session")
def make_small_model() -> Callable[..., LlamaForCausalLM]:
    """Makes small models; see `make_model`."""
    return make_model


@pytest.fixture(scope="session")
def small_tokenizer() -> Any:
    """The tokenizer of the small model."""
    return make_tokenizer()


@pytest.fixture
def more(tmp_path) -> Callable[..., Path]:
    """Write documents with these ids and texts."""

    def write(texts: dict[str, str], name: str = "more.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"id": i, "text": text, "number": -1}) + "\n" for i, text in texts.items()))
        return path

    return write


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run a command in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(gindex, [str(argument) for argument in arguments])

    return run
