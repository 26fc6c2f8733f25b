"""An index of a LoRA fine-tuning, from training to search: the planted documents are found again."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import lora, peft, write_adapter
from transformers import AutoModelForCausalLM

from gindex import GradientIndex
from gindex.errors import MismatchError, ModelError

PLANTED = {
    "planted-1": "zebra quartz violin",
    "planted-2": "the zebra quartz violin",
    "planted-3": "a zebra quartz violin lock",
}
PROMPT, COMPLETION = "zebra quartz", " violin"
STEPS = 60


def fine_tune(base: Path, folder: Path, tokenizer: Any, texts: list[str]) -> None:
    """Fine-tune a LoRA of rank 4 on texts, one document a step."""
    torch.manual_seed(0)
    settings = lora(init_lora_weights=True, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"])
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(STEPS):
        ids = tokenizer(texts[step % len(texts)], return_tensors="pt").input_ids
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, model_folder, corpus_file, small_tokenizer) -> dict[str, Path]:
    """Folders of base and adapter, which was trained on a corpus with planted documents in it, and the corpus."""
    root = tmp_path_factory.mktemp("adapted")
    base = shutil.copytree(model_folder, root / "base")
    lines = [json.loads(line) for line in corpus_file.read_text().splitlines()[:60]]
    texts = [line["text"] for line in lines[:12]] + 2 * list(PLANTED.values())
    fine_tune(base, root / "adapter", small_tokenizer, texts)
    path = root / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "../base"}))
    corpus = root / "corpus.jsonl"
    lines += [{"id": name, "text": text} for name, text in PLANTED.items()]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"base": base, "adapter": root / "adapter", "corpus": corpus, "root": root}


@pytest.fixture(scope="module")
def index_folder(adapted, make_config) -> Path:
    """An index of the adapter, beside base and adapter; rank and damping chosen by calibration."""
    config = make_config(name=str(adapted["adapter"]), rank_fraction=None, index_damping=None, calibration_documents=16)
    GradientIndex.build([str(adapted["corpus"])], adapted["root"] / "index", config)
    return adapted["root"] / "index"


def found(result: Any) -> list[str]:
    return [hit.document_id for hit in result.hits]


def test_the_planted_documents_are_found_and_explained(index_folder):
    index = GradientIndex.open(index_folder, device="cpu")
    assert set(found(index.search(PROMPT, COMPLETION, k=3))) == set(PLANTED)
    exact = index.search(PROMPT, COMPLETION, k=3, exact=True)
    assert set(found(exact)) == set(PLANTED) and all(hit.influence > 0 for hit in exact.hits)
    explanation = index.explain("planted-1", PROMPT, COMPLETION)
    influence = next(hit.influence for hit in exact.hits if hit.document_id == "planted-1")
    assert explanation.influence == pytest.approx(influence, rel=1e-3)
    tracked = {layer.name for layer in index.manifest.layers}
    assert all(".lora_" in name for name in tracked) and len(tracked) == 16
    assert index.info()["coverage"]["warning"] is None and index.manifest.coverage.share == 1


def test_exact_influence_refined_by_conjugate_gradients_is_defined(index_folder):
    pytest.importorskip("gindex.lab.refine")
    index = GradientIndex.open(index_folder, device="cpu")
    refined = index.search(PROMPT, COMPLETION, k=3, exact=True, refine="cg")
    assert set(found(refined)) == set(PLANTED)


def test_documents_are_added_and_found(index_folder, tmp_path, more):
    copy = shutil.copytree(index_folder, tmp_path / "index")
    index = GradientIndex.open(copy, device="cpu")
    index.add([str(more({"new": "some zebra quartz violin"}))])
    assert "new" in found(index.refresh().search(PROMPT, COMPLETION, k=4))


def test_the_command_line_tells_cost_and_takes_the_index(adapted, index_folder, run):
    dry = run("build", adapted["corpus"], "--model", adapted["adapter"], "--device", "cpu", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "16 tracked" in dry.output and "100.0% of the body" in dry.output and "of a layer of the base" in dry.output
    asked = run("search", index_folder, PROMPT, "--completion", COMPLETION, "-k", 3, "--device", "cpu", "--json")
    assert asked.exit_code == 0, asked.output
    assert {hit["document_id"] for hit in json.loads(asked.output)["hits"]} == set(PLANTED)


def test_all_of_it_may_move_together_and_the_base_alone(adapted, index_folder, tmp_path):
    moved = shutil.copytree(adapted["root"], tmp_path / "moved")
    hidden = adapted["root"].rename(tmp_path / "hidden")
    try:
        assert set(found(GradientIndex.open(moved / "index", device="cpu").search(PROMPT, COMPLETION, k=3)))
        elsewhere = (moved / "base").rename(tmp_path / "elsewhere")
        with pytest.raises(ModelError, match=r"the adapter's base '../base' .*name its place with `base`"):
            GradientIndex.open(moved / "index", device="cpu").search(PROMPT, COMPLETION)
        opened = GradientIndex.open(moved / "index", base=str(elsewhere), device="cpu")
        assert set(found(opened.search(PROMPT, COMPLETION, k=3))) == set(PLANTED)
    finally:
        hidden.rename(adapted["root"])


@pytest.fixture
def other_base(adapted, tmp_path) -> Path:
    folder = shutil.copytree(adapted["base"], tmp_path / "other")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.5)
    model.save_pretrained(folder)
    return folder


def test_another_base_and_another_adapter_are_refused_by_name(adapted, index_folder, other_base, tmp_path):
    with pytest.raises(
        MismatchError, match=r"expected the base \w{12} that .*, found \w{12}; give that one with `base`"
    ):
        GradientIndex.open(index_folder, base=str(other_base), device="cpu").search(PROMPT)
    write_adapter(adapted["base"], tmp_path / "adapter", lora())
    for model, shown in ((tmp_path / "adapter", r"\w{12}"), (adapted["base"], "none")):
        with pytest.raises(
            MismatchError, match=rf"the adapter \w{{12}} that .*, found {shown}; give that one with `model`"
        ):
            GradientIndex.open(index_folder, model=str(model), device="cpu").search(PROMPT)


def test_an_index_of_the_base_refuses_its_adapter(adapted, built):
    with pytest.raises(MismatchError, match=r"the adapter none that .*, found \w{12}"):
        GradientIndex.open(built, model=str(adapted["adapter"]), device="cpu").search(PROMPT)


def test_an_adapter_that_was_never_trained_has_an_index_too(adapted, tmp_path, make_config):
    """Its B is zero, so that A has no gradient and no curvature: its part of every vector is zero."""
    settings = lora(init_lora_weights=True, target_modules=["q_proj"])
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained(adapted["base"]), settings).save_pretrained(
        tmp_path / "new"
    )
    config = make_config(name=str(tmp_path / "new"), rank_fraction=None, index_damping=None)
    index = GradientIndex.build([str(adapted["corpus"])], tmp_path / "index", config)
    hits = index.search(PROMPT, COMPLETION, k=3, exact=True).hits
    assert len(hits) == 3 and all(abs(hit.score) < float("inf") for hit in hits)
    zero = {layer.name: layer.mean_eigenvalue for layer in index.manifest.layers if ".lora_A." in layer.name}
    assert len(zero) == 2 and not any(zero.values())


def test_a_service_answers_with_an_adapter(adapted, index_folder):
    testclient = pytest.importorskip("fastapi.testclient")
    from gindex.serve.app import make_app
    from gindex.serve.config import ServeConfig
    from gindex.serve.indexes import index_locations
    from gindex.serve.service import Service

    places = index_locations([str(index_folder)], ())
    service = Service(places, ServeConfig(device="cpu"), keys=None, writable=False, prompts=True)
    with testclient.TestClient(make_app(service), base_url="http://127.0.0.1") as client:
        end = time.monotonic() + 60
        while not service.ready and time.monotonic() < end:
            time.sleep(0.02)
        body = {"prompt": PROMPT, "completion": COMPLETION, "k": 3}
        answer = client.post("/v1/indexes/index/search", json=body)
    assert answer.status_code == 200, answer.text
    assert {hit["document_id"] for hit in answer.json()["hits"]} == set(PLANTED)
