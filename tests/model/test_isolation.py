"""A pass has its model to itself, sees its own thread alone, and leaves torch as it found it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from probes import random_probe
from torch import nn

from gindex.model.capture import observe
from gindex.model.checkpointing import checkpointed
from gindex.model.isolation import alone, defaults, loading, neutral, own, plain, share_turns
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer
from gindex.model.tracking import track_layers


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))


def tracked(model: nn.Module) -> tuple[TrackedLayer, ...]:
    return track_layers(model, random_probe(model, 3)).layers


class Seen(Observer):
    """Notes what it is shown, and which threads are in a pass meanwhile."""

    def __init__(self, inside: set[int]) -> None:
        self.inputs: list[float] = []
        self.met: set[int] = set()
        self._inside = inside

    def activations(self, layer: TrackedLayer, a_NTI: torch.Tensor) -> torch.Tensor:
        self._inside.add(threading.get_ident())
        time.sleep(0.002)  # gives others the time to come in
        self.met |= self._inside
        self.inputs.append(float(a_NTI.sum()))
        return a_NTI

    def gradients(self, layer: TrackedLayer, kept: torch.Tensor, g_NTO: torch.Tensor) -> None:
        self.met |= self._inside
        if layer.name == "0":  # the last to be seen on the way back
            self._inside.discard(threading.get_ident())


def test_passes_over_one_model_take_turns_whatever_holds_it_and_whatever_is_tracked():
    model = two_layers()
    wrapped = nn.Sequential(model)
    share_turns(wrapped)
    layers = tracked(model)
    inside: set[int] = set()

    def run(number: int) -> Seen:
        seen, x = Seen(inside), torch.full((2, 3), float(number))
        some = layers if number % 2 else layers[:1]
        observe(some, seen, 2, lambda: (model if number % 3 else wrapped)(x).sum(1))
        return seen

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(24)))
    for number, seen in enumerate(found):
        assert len(seen.met) == 1
        assert len(seen.inputs) == (2 if number % 2 else 1) and seen.inputs[0] == 6.0 * number


def test_another_thread_that_uses_the_model_is_not_observed():
    model, seen = two_layers().requires_grad_(False), Seen(set())
    layers, results = tracked(model), []

    def losses() -> torch.Tensor:
        user = threading.Thread(target=lambda: results.append(model(torch.full((7, 3), 5.0))))
        user.start()
        user.join()
        return model(torch.ones(2, 3)).sum(1)

    observe(layers, seen, 2, losses)
    assert len(seen.inputs) == 2 and seen.inputs[0] == 6.0
    assert not results[0].requires_grad and torch.equal(results[0], model(torch.full((7, 3), 5.0)))


def test_layers_that_run_on_another_thread_are_not_tracked():
    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.here, self.there = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(self.there, self.here(x)).result()

    model = Elsewhere()
    table = track_layers(model, random_probe(model, 3))
    assert [layer.name for layer in table.layers] == ["here"]
    assert {of.reason for of in table.untracked} == {"not called in a forward pass"}


def test_a_pass_inside_another_sees_its_own():
    model = two_layers()
    layers, inner = tracked(model), Seen(set())

    class Nesting(Seen):
        def gradients(self, layer: TrackedLayer, kept: torch.Tensor, g_NTO: torch.Tensor) -> None:
            if layer.name == "1":
                observe(layers, inner, 3, lambda: model(torch.full((3, 3), 2.0)).sum(1))

    outer = Nesting(set())
    observe(layers, outer, 2, lambda: model(torch.ones(2, 3)).sum(1))
    assert outer.inputs[0] == 6.0 and inner.inputs[0] == 18.0
    assert len(outer.inputs) == len(inner.inputs) == 2
    assert not any(layer.module._forward_hooks for layer in layers)


def test_a_block_that_runs_again_on_another_thread_is_still_in_its_pass():
    """As on an accelerator, whose backward pass has threads of its own."""
    model, seen = two_layers().requires_grad_(False), []
    with alone(model), checkpointed([model]):
        handle = model[0].register_forward_hook(own(lambda *_: seen.append(threading.get_ident())))
        loss = model(torch.ones(2, 3, requires_grad=True)).sum()
        backward = threading.Thread(target=loss.backward)
        backward.start()
        backward.join()
        handle.remove()
    assert len(set(seen)) == 2


def test_the_state_inside_and_after():
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        with neutral():
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
            assert not torch.is_autocast_enabled("cpu") and torch.get_default_device().type == "meta"
        with plain():
            assert torch.get_default_device().type == "cpu"
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
        assert torch.get_default_device().type == "meta"


def test_threads_that_change_the_number_format_take_turns():
    """None gives back what another has set for the time of its own pass."""
    ours = [two_layers() for _ in range(4)]
    for model in ours:
        share_turns(model, ours=True)
    torch.set_default_dtype(torch.float64)
    try:

        def run(number: int) -> Any:
            with loading() if number == 0 else alone(ours[number]):
                formats = [torch.get_default_dtype()]
                time.sleep(0.005)
                return [*formats, torch.get_default_dtype()]

        with ThreadPoolExecutor(4) as pool:
            for _ in range(5):
                assert list(pool.map(run, range(4))) == [[torch.float32] * 2] * 4
        assert torch.get_default_dtype() == torch.float64
        with pytest.raises(ZeroDivisionError), defaults():
            raise ZeroDivisionError
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
