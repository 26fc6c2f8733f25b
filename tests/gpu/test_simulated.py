"""On a simulated accelerator: nothing mixes what is on it with what isn't, and layers cost no crossing of their own."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simulated_acts as acts
import simulated_device
import torch
from simulated_device import DEVICE
from torch.utils import backend_registration

from gindex import GradientIndex
from gindex.config import BuildConfig
from gindex.store.layout import Layout
from gindex.store.snapshot import Snapshot

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="needs a torch that simulates devices in Python",
)


@pytest.fixture(scope="module")
def device() -> Iterator[ProcessPoolExecutor]:
    """A process with the device."""
    with simulated_device.pool() as process:
        yield process


def decoded(folder: Path) -> torch.Tensor:
    reader = Snapshot.open(Layout(folder)).vectors
    return reader.decoded(np.arange(reader.spec.parts))


def on_device(config: BuildConfig) -> BuildConfig:
    return replace(config, model=replace(config.model, device=DEVICE))


def test_vectors_with_the_same_factors(device, tmp_path, corpus_file, make_config, run):
    """Vectors are lost and computed again on the device with the same factors; at 16 bits the codes lose little."""
    folder, config = tmp_path / "index", make_config(bits=16, dtype="float32")
    GradientIndex.build([str(corpus_file)], folder, config)
    on_cpu = decoded(folder)
    for shards in folder.glob("volumes/*/vectors/*/c"):
        shutil.rmtree(shards)
    assert run("repair", folder).exit_code == 0
    device.submit(acts.build, [str(corpus_file)], folder, on_device(config)).result()
    assert float((decoded(folder) - on_cpu).abs().max()) < 1e-3 * float(on_cpu.abs().max())


@pytest.mark.parametrize("kind", ["ekfac", "kfac", "diagonal", "identity"])
def test_whole_builds_and_exact_search(device, tmp_path, corpus_file, make_config, kind):
    folder, settings = (
        tmp_path / "index",
        {"curvature": kind, "dtype": "float32", "index_damping": None, "rank_fraction": None},
    )
    device.submit(acts.build, [str(corpus_file)], folder, on_device(make_config(**settings))).result()
    hits = {name: device.submit(acts.found, folder, name).result() for name in ("cpu", DEVICE)}
    assert [hit[:2] for hit in hits["cpu"]] == [hit[:2] for hit in hits[DEVICE]]
    assert [hit[2] for hit in hits[DEVICE]] == pytest.approx([hit[2] for hit in hits["cpu"]], rel=1e-3)


def test_layers_cost_no_crossing(device, model_folder):
    """What is waited for, and what is copied, is of the batch: as much for 14 tracked layers as for one."""
    one, all_layers = (device.submit(acts.crossings, str(model_folder), count).result() for count in (1, 14))
    assert one == all_layers
    # Tokens, where losses are, and labels; what is waited for is in what transformers makes of masks.
    assert one["vectors"] == {"to device": 3, "waited for": 1}
    # The fit also waits for how many losses are finite, and covariances take the mask.
    assert one["covariances"] == {"to device": 4, "waited for": 2}
    assert one["eigenvalues"] == {"to device": 3, "waited for": 2}


def test_attribution_without_an_index(device):
    expected, got = (device.submit(acts.attributed, name).result() for name in ("cpu", DEVICE))
    assert expected.keys() == got.keys()
    for name, scores in expected.items():
        torch.testing.assert_close(got[name], scores, rtol=1e-3, atol=1e-4 * float(scores.abs().max()), msg=name)


def test_both_sides_do_not_mix(device):
    with pytest.raises(RuntimeError, match="expected all tensors on simulated:0"):
        device.submit(acts.mix).result()
