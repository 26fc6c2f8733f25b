"""What a caller has set in torch changes no answer: modes of the thread, default device and number format."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gindex import BuildConfig, GradientIndex
from gindex.build.run import run_build
from gindex.change.reindex import reindex
from gindex.change.verify import verify
from gindex.config import VectorConfig
from gindex.errors import ModelError
from gindex.lab.attribution import Attribution, coded_scores, tracked_layers
from gindex.lab.refine.config import CgConfig, LissaConfig
from gindex.model.tensor_batches import tensor_batches
from gindex.model.tensor_tasks import Classification
from gindex.store.layout import Layout

State = Callable[[], AbstractContextManager[Any]]


def default_dtype(dtype: torch.dtype) -> State:
    @contextmanager
    def state() -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            yield
            assert torch.get_default_dtype() == dtype  # it is the caller's again after each answer
        finally:
            torch.set_default_dtype(before)

    return state


@contextmanager
def rounded_products() -> Iterator[None]:
    """Products of float32 may be rounded to bfloat16, as scripts that train often have it."""
    torch.set_float32_matmul_precision("medium")
    try:
        yield
        assert torch.get_float32_matmul_precision() == "medium"  # the caller's again
    finally:
        torch.set_float32_matmul_precision("highest")


MODES: dict[str, State] = {
    "rounded products": rounded_products,
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default float64": default_dtype(torch.float64),
    "default bfloat16": default_dtype(torch.bfloat16),
    "default float16": default_dtype(torch.float16),
    "default device": lambda: torch.device("meta"),  # which makes tensors without values
}


@pytest.fixture(params=MODES.values(), ids=MODES.keys())
def state(request: pytest.FixtureRequest) -> State:
    return request.param


def answers(index: GradientIndex) -> list[Any]:
    """Everything that an index can be asked, as plain values."""

    def hits(**settings: Any) -> Any:
        return index.search("the compiler race", " bug the stack", k=5, **settings).hits

    (encoded,) = index.encode([query()])
    vectors_QD = encoded.vector_D[None]
    layers = {layer.name: (layer.outputs, layer.inputs) for layer in index.manifest.layers}
    generator = torch.Generator().manual_seed(0)
    gradients = {
        name: torch.randn((1, *shape), generator=generator, dtype=torch.float32, device="cpu")
        for name, shape in layers.items()
    }
    return [
        hits(),
        hits(exact=True, candidates=20),
        hits(exact=True, refine="cg", refine_parts=4, refine_settings={"iterations": 2}, candidates=5),
        hits(exact=True, refine="lissa", refine_parts=4, refine_settings={"iterations": 40}, candidates=5),
        hits(both=True, layers=True, normalise="relatif", scan=True),
        hits(words="rank", dedupe=0.9, hits="document"),
        [found.hits for found in index.search_vectors(vectors_QD, k=3)],
        [found.hits for found in index.search_vectors(vectors_QD.numpy(), k=3)],
        [found.hits for found in index.search_gradients(gradients, k=3)],
        index.scores(vectors_QD).tolist(),
        index.explain("d3", "the compiler race"),
        index.outliers(5),
        index.fidelity(sample=2, parts=30).scores.tolist(),
        index.fidelity([query()], parts=30).influence.tolist(),
    ]


def query() -> Any:
    from gindex.queries.query import Query

    return Query(prompt="the compiler race", completion=" bug")


@pytest.fixture(scope="module")
def expected(built) -> list[Any]:
    return answers(GradientIndex.open(built, device="cpu"))


def test_an_index_that_is_opened_and_asked_in_a_state(built, expected, state):
    with state():
        assert answers(GradientIndex.open(built, device="cpu")) == expected


def test_an_index_that_is_only_asked_in_a_state(built, expected, state):
    index = GradientIndex.open(built, device="cpu")
    index.warm()
    with state():
        assert answers(index) == expected


def test_an_index_that_is_only_loaded_in_a_state(built, expected, state):
    with state():
        index = GradientIndex.open(built, device="cpu")
        index.warm()
        assert index.reranker is not None
    assert answers(index) == expected


def built_files(folder: Path, corpus: Path, config: BuildConfig) -> dict[str, bytes]:
    """Build, delete, add a second level, and check; return the content of all files but what tells the time."""
    run_build([str(corpus)], folder, config)
    GradientIndex.open(folder, device="cpu").delete(["d5"])
    reindex(Layout(folder), "flat", transform="second-level")
    assert verify(Layout(folder), deep=True)["problems"] == []
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "manifests"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def settings(make_config) -> BuildConfig:
    return make_config(projection="kronecker", bits=8, index_damping=None, rank_fraction=None)


@pytest.fixture(scope="module")
def expected_files(tmp_path_factory, corpus_file, settings) -> dict[str, bytes]:
    return built_files(tmp_path_factory.mktemp("plain") / "index", corpus_file, settings)


def test_a_build_in_a_state_makes_the_same_files(tmp_path, corpus_file, settings, expected_files, state):
    with state():
        assert built_files(tmp_path / "index", corpus_file, settings) == expected_files


class Own(nn.Module):
    """A model that makes a tensor on its way, as the caller's default device has it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def attributions(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[Any]:
    documents, queries = tensor_batches(x, y, 5), tensor_batches(x[:4] + 0.1, y[:4], 2)
    task = Classification(model)
    attribution = Attribution.fit(task, tracked_layers(task, documents), documents)
    path = attribution.vector_path(VectorConfig(dimension=16, rank_fraction=None), 0.1)
    vectors = [attribution.vectors(path, of).vectors for of in (queries, documents)]
    inverses = [
        attribution.factored_inverse(),
        attribution.dense_inverse(documents),
        attribution.iterative_inverse(documents, config=CgConfig(iterations=3)),
        attribution.iterative_inverse(documents, config=LissaConfig(iterations=60)),
    ]
    return [
        attribution.influence(queries, documents).tolist(),
        attribution.self_influence(documents).tolist(),
        *[attribution.influence_by(inverse, queries, documents).tolist() for inverse in inverses],
        *[of.tolist() for of in vectors],
        coded_scores(*vectors, 8, path.projection.spec, mu=0.1).tolist(),
    ]


def test_attribution_in_a_state(state):
    torch.manual_seed(0)
    model, x, y = Own(), torch.randn(24, 6), torch.arange(24) % 3
    plain = attributions(model, x, y)
    with state():
        assert attributions(model, x, y) == plain


def test_documents_that_were_made_in_inference_mode():
    class Gated(Own):
        """The input is needed again on the way back."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.cat([self.first(x)[:, :6] * x, x[:, :2]], 1))

    torch.manual_seed(0)
    model, x, y = Gated(), torch.randn(24, 6), torch.arange(24) % 3
    plain = attributions(model, x, y)
    with torch.inference_mode():
        inside = x.clone(), y.clone()
    assert inside[0].is_inference()
    for found, expected in zip(
        attributions(model, *inside), plain, strict=True
    ):  # a copy lies elsewhere: other rounding
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_model_that_was_made_in_inference_mode():
    with torch.inference_mode():
        model = Own()
    with pytest.raises(ModelError, match=r"Own: expected weights that gradients pass, .*inference_mode.*deepcopy"):
        Classification(model)
    Classification(copy.deepcopy(model))


def test_a_model_of_the_caller_runs_with_the_defaults_of_the_caller():
    """A float64 model that makes a tensor of the default number format needs that to be float64."""

    class Making(Own):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.addmm(torch.zeros(8), x, self.first.weight.T))

    with default_dtype(torch.float64)():
        torch.manual_seed(0)
        model, x, y = Making(), torch.randn(24, 6), torch.arange(24) % 3
        assert model.first.weight.dtype == torch.float64
        plain = attributions(model, x, y)
        with torch.inference_mode():
            assert attributions(model, x, y) == plain
