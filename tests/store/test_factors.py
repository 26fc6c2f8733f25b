"""EK-FAC factors on disk."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from gindex.errors import CorruptStoreError, StoreError
from gindex.model.layer_records import LayerRecord
from gindex.model.layers import LayerTable, TrackedLayer
from gindex.store.factors import (
    FactorReader,
    mean_eigenvalues,
    read_bases,
    write_tensors,
)
from gindex.store.layout import Layout

CPU = torch.device("cpu")
# name, group, source, inputs, outputs: three layers share activations, one of them in another group.
SHAPES = [("0.q", "0", "0.q", 5, 4), ("0.k", "0", "0.q", 5, 3), ("1.q", "1", "1.q", 6, 2), ("1.k", "1", "0.q", 5, 2)]
RECORDS = [
    LayerRecord(
        name=name,
        group=group,
        source=source,
        inputs=inputs,
        outputs=outputs,
        activation_rank=inputs - 2,
        gradient_rank=outputs - 1,
        mean_eigenvalue=0.5,
    )
    for name, group, source, inputs, outputs in SHAPES
]
TABLE = LayerTable(
    layers=tuple(
        TrackedLayer(
            name=name,
            module=nn.Linear(i, o, bias=False),
            inputs=i,
            outputs=o,
            has_bias=False,
            group=group,
            source=source,
        )
        for name, group, source, i, o in SHAPES
    ),
    untracked=(),
)


@pytest.fixture
def layout(tmp_path) -> Layout:
    """An index with random factors, eigenvectors as rows."""
    torch.manual_seed(0)
    layout = Layout(tmp_path)
    for number, layers in enumerate(TABLE.by_group()):
        bases = {f"gradient.{layer.name}": torch.randn(layer.outputs, layer.outputs) for layer in layers}
        bases |= {f"activation.{x.name}": torch.randn(x.inputs, x.inputs) for x in layers if x.name == x.source}
        write_tensors(layout.eigenbases(number), bases, {})
        values = {layer.name: torch.rand(layer.outputs, layer.inputs) for layer in layers}
        means = {name: float(value.mean()) for name, value in values.items()}
        write_tensors(layout.eigenvalues(number), values, {"mean": means})
    return layout


def test_files(layout):
    found = sorted(path for path in layout.factors.iterdir())
    assert found == sorted(layout.factor_files(2)) and len(found) == 4


def test_whole_factors_have_eigenvectors_as_columns(layout):
    from safetensors.torch import load_file

    reader, (activation, gradient) = FactorReader(layout, RECORDS, CPU), read_bases(layout, TABLE, TABLE.layers, CPU)
    for record, number in zip(RECORDS, (0, 0, 1, 1), strict=True):
        factors = reader.load(record.name)
        of_source, own = (load_file(layout.eigenbases(of)) for of in (int(record.source[0]), number))
        assert torch.equal(factors.Q_A.matrix(), of_source[f"activation.{record.source}"].T)
        assert torch.equal(factors.Q_S.matrix(), own[f"gradient.{record.name}"].T)
        assert torch.equal(factors.Q_A.matrix(), activation[record.source].matrix())
        assert torch.equal(factors.Q_S.matrix(), gradient[record.name].matrix())
        assert torch.equal(factors.Lambda, load_file(layout.eigenvalues(number))[record.name])
        assert factors.mean_eigenvalue == 0.5


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_leading_parts_are_slices_of_the_whole(layout, record):
    reader = FactorReader(layout, RECORDS, CPU)
    whole = reader.load(record.name)
    for r, p in [(1, 1), (2, 1), (record.inputs, record.outputs)]:
        part = reader.load(record.name, r, p)
        assert torch.equal(part.Q_A.matrix(), whole.Q_A.matrix()[:, :r]) and torch.equal(
            part.Q_S.matrix(), whole.Q_S.matrix()[:, :p]
        )
        assert torch.equal(part.Lambda, whole.Lambda[:p, :r])


def test_truncated_layers_share_the_basis_of_shared_activations(layout):
    reader = FactorReader(layout, RECORDS, CPU)
    truncated = reader.truncated()
    assert list(truncated) == [record.name for record in RECORDS]
    for record in RECORDS:
        expected = reader.load(record.name, record.activation_rank, record.gradient_rank)
        assert torch.equal(truncated[record.name].Q_A.matrix(), expected.Q_A.matrix())
        assert torch.equal(truncated[record.name].Q_S.matrix(), expected.Q_S.matrix())
        assert torch.equal(truncated[record.name].Lambda, expected.Lambda)
    assert truncated["0.k"].Q_A is truncated["0.q"].Q_A


def test_means_are_read_from_all_groups(layout):
    means = mean_eigenvalues(layout, 2)
    reader = FactorReader(layout, RECORDS, CPU)
    assert means == {record.name: float(reader.load(record.name).Lambda.mean()) for record in RECORDS}


def damage_remove(path: Path) -> None:
    path.unlink()


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_replace(path: Path) -> None:
    path.write_bytes(b"no factors at all")


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_foreign(path: Path) -> None:
    write_tensors(path, {"something.else": torch.zeros(2)}, {"mean": {}})


def test_bases_of_some_layers_are_read_from_the_files_that_hold_them(layout):
    """The source of the last layer's activations is of an earlier layer group."""
    whole = read_bases(layout, TABLE, TABLE.layers, CPU)
    for layer in TABLE:
        some = read_bases(layout, TABLE, [layer], CPU)
        for name, found, every in zip((layer.source, layer.factors), some, whole, strict=True):
            assert found.keys() == {name} and torch.equal(found[name].matrix(), every[name].matrix())


@pytest.mark.parametrize("kind", ["eigenbases", "eigenvalues"])
@pytest.mark.parametrize("damage", [damage_remove, damage_truncate, damage_replace, damage_empty, damage_foreign])
def test_damage_names_the_file(layout, kind, damage):
    path = getattr(layout, kind)(0)
    damage(path)
    with pytest.raises(CorruptStoreError, match=re.escape(str(path))):
        FactorReader(layout, RECORDS, CPU).truncated()
    if kind == "eigenbases":
        with pytest.raises(CorruptStoreError, match=re.escape(str(path))):
            read_bases(layout, TABLE, TABLE.layers, CPU)


def test_factors_that_cannot_be_written_are_reported(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def fail(*_args: object) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr("gindex.store.factors.save_file", fail)
    with pytest.raises(StoreError, match="No space left"):
        write_tensors(tmp_path / "factors" / "file", {"x": torch.zeros(1)}, {})
    assert list((tmp_path / "factors").iterdir()) == []
