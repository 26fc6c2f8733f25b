"""The folder of an adapter: which adapter is meant, and where its base is; peft is not needed for that."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from gindex.config import ModelConfig
from gindex.errors import MissingDependencyError, ModelError
from gindex.model.adapter_folder import AdapterFolder
from gindex.model.load import load_model, read_model


def write(folder: Path, **settings: Any) -> Path:
    """Write what an adapter's folder holds, without weights that could be applied."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | settings))
    (folder / "adapter_model.safetensors").touch()
    return folder


def find(place: Path, **options: Any) -> AdapterFolder | None:
    return AdapterFolder.find(place, ModelConfig(name=str(place), **options))


def refused(place: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        find(place, **options)
    assert str(caught.value).startswith(str(place))
    return str(caught.value)


def test_a_folder_without_adapters_is_a_plain_model(model_folder):
    assert find(model_folder) is None
    assert find(model_folder, adapter="none") is None
    assert "expected an adapter 'x', found no adapter; leave `adapter` out" in refused(model_folder, adapter="x")


def test_one_adapter_is_taken_and_one_of_several_by_its_name(tmp_path):
    one = write(tmp_path / "several/one")
    assert find(tmp_path / "several").path == one
    two = write(tmp_path / "several/two")
    assert "found adapters (one, two); choose one with `adapter`" in refused(tmp_path / "several")
    assert find(tmp_path / "several", adapter="two").path == two
    here = write(tmp_path / "several")
    assert "adapters (default, one, two)" in refused(tmp_path / "several")
    assert find(tmp_path / "several", adapter="default").path == here
    assert "expected an adapter 'three', found default, one, two" in refused(tmp_path / "several", adapter="three")


def test_checkpoints_of_the_training_are_taken_by_name_alone(tmp_path):
    folder, checkpoint = write(tmp_path / "out"), write(tmp_path / "out/checkpoint-50")
    assert find(folder).path == folder
    assert find(folder, adapter="checkpoint-50").path == checkpoint


def test_an_adapter_beside_a_model_must_be_chosen_or_left(tmp_path, model_folder):
    folder = write(shutil.copytree(model_folder, tmp_path / "both"), base_model_name_or_path="elsewhere")
    message = refused(folder)
    assert "found a model and adapters (default)" in message and "or the model alone with `adapter` none" in message
    assert find(folder, adapter="none") is None
    chosen = find(folder, adapter="default")
    assert chosen.base(ModelConfig(name=str(folder))).name == str(folder)  # the one beside it


@pytest.mark.parametrize("installed", [False, True])
def test_a_model_is_read_alone_with_peft_and_without(tmp_path, model_folder, monkeypatch, installed):
    """transformers applies an adapter that it finds by itself, where peft is installed."""
    monkeypatch.setattr("transformers.models.auto.auto_factory.is_peft_available", lambda: installed)
    monkeypatch.setattr("transformers.integrations.peft.is_peft_available", lambda: installed)
    folder = write(shutil.copytree(model_folder, tmp_path / "both"), base_model_name_or_path="elsewhere")
    alone = load_model(ModelConfig(name=str(folder), device="cpu", adapter="none"))
    assert alone.identity == load_model(ModelConfig(name=str(model_folder), device="cpu")).identity


def test_a_model_alone_is_not_taken_from_a_folder_that_has_none(tmp_path):
    message = refused(write(tmp_path / "adapter"), adapter="none")
    assert "expected a whole model beside the adapter, found the adapter alone" in message


def base_of(folder: Path, **options: Any) -> str:
    config = ModelConfig(name=str(folder), **options)
    found = AdapterFolder.find(folder, config)
    assert found is not None
    return str(found.find_base(found.base(config)))


def test_the_base_is_looked_for_from_the_adapter_then_from_here(tmp_path, model_folder, monkeypatch):
    folder = write(tmp_path / "adapter", base_model_name_or_path="../base")
    (tmp_path / "base").mkdir()
    assert Path(base_of(folder)).samefile(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    write(folder, base_model_name_or_path="base")
    assert Path(base_of(folder)).samefile(tmp_path / "base")
    write(folder, base_model_name_or_path=str(model_folder))
    assert base_of(folder) == str(model_folder)
    assert base_of(folder, base="base") == "base"  # what is given comes first


def test_a_base_that_is_nowhere_is_named_with_the_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "adapter", base_model_name_or_path="gone/base/model")
    with pytest.raises(ModelError) as caught:
        base_of(folder)
    for place in (tmp_path / "adapter/gone/base/model", tmp_path / "gone/base/model"):
        assert f"found no folder {place}" in str(caught.value)
    assert "name its place with `base`" in str(caught.value)
    write(folder, base_model_name_or_path=None)
    with pytest.raises(ModelError, match="hub name as base_model_name_or_path, found None; name it with `base`"):
        base_of(folder)


def test_a_base_for_a_whole_model_is_refused(model_folder):
    with pytest.raises(ModelError, match="base: expected an adapter, found a whole model"):
        read_model(ModelConfig(name=str(model_folder), base="x"))


def test_without_peft_an_adapter_is_refused_with_the_way_to_get_it(tmp_path, model_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    folder = write(tmp_path / "adapter", base_model_name_or_path=str(model_folder))
    with pytest.raises(MissingDependencyError, match=rf"{folder}: expected the package peft, .*; pip .*\[peft\]"):
        read_model(ModelConfig(name=str(folder)))


def test_an_adapter_on_an_adapter_is_refused(tmp_path):
    pytest.importorskip("peft")
    base = write(tmp_path / "base")
    folder = write(tmp_path / "adapter", base_model_name_or_path=str(base))
    with pytest.raises(ModelError, match=r"expected a model folder with config\.json, found an adapter; merge it"):
        read_model(ModelConfig(name=str(folder)))


def test_without_weights_an_adapter_is_refused(tmp_path):
    folder = write(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    assert "expected the adapter's weights in adapter_model.safetensors, found none" in refused(folder)
