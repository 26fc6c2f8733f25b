"""Trials of what a model can be run with: implementations of attention, and number formats of the passes."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gindex.build.allocator import release
from gindex.build.pass_speed import token_seconds
from gindex.check.gradients import tolerance
from gindex.check.result import NOT_TRIED, OK, WARNING, Finding
from gindex.check.sketch import Sketches, sketch
from gindex.config import AUTO, DTYPES, ModelConfig
from gindex.corpus.objectives import Objective
from gindex.errors import GindexError
from gindex.model.library_messages import first_line, quiet
from gindex.model.tracked_model import TrackedModel

ATTENTION, PRECISION = "attention", "precision"

IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""Those of transformers. All but the first two run on accelerators alone."""

PORTABLE = IMPLEMENTATIONS[:2]

FAITHFUL = 0.99
"""Cosine with gradients in float32 from which on a narrower format is advised, where it is faster."""

ROOM = 1.5
"""Memory for a model in another format, as a multiple of its weights."""


def attention_findings(model: TrackedModel, objectives: Sequence[Objective], used: Sketches) -> Iterator[Finding]:
    """Compare gradients by each implementation of attention with those by the one that builds use."""
    own = getattr(getattr(model.loaded.model, "config", None), "_attn_implementation", None)
    usual = "sdpa" if own not in IMPLEMENTATIONS else own  # gindex's own is torch's, in another number format
    for name in IMPLEMENTATIONS:
        if name not in PORTABLE and model.device.type != "cuda":
            yield _attention(name, "needs a GPU", NOT_TRIED)
            continue
        try:
            with _attending(model, name):
                found, speed = sketch(model, objectives), _speed(model, objectives)
        except Exception as error:  # transformers has an error for each thing that is missing
            yield _attention(name, first_line(error), NOT_TRIED)
            continue
        difference, layer = found.difference(used)
        wrong = difference > tolerance(model.dtype)
        by = "as builds use it" if name == usual else f"largest relative difference {difference:.1g}, {layer}"
        yield replace(
            _attention(name, f"{by}; {speed:,.0f} tokens/s", WARNING if wrong else OK),
            remedy=f"gradients differ between {usual} and {name}: use `dtype` float32" if wrong else "",
            figures={"difference": difference, "layer": layer, "tokens_per_second": speed, "used": int(name == usual)},
        )


def _attention(name: str, found: str, verdict: str) -> Finding:
    return Finding(section=ATTENTION, name=name, found=found, verdict=verdict)


@contextmanager
def _attending(model: TrackedModel, name: str) -> Iterator[None]:
    """Run a model with another implementation of attention."""
    module = model.loaded.model
    before = module.config._attn_implementation  # type: ignore[union-attr]
    with model.alone(), quiet():
        try:
            module.set_attn_implementation(name)  # type: ignore[operator]
            yield
        finally:
            module.set_attn_implementation(before)  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True)
class _Format:
    """Passes in a number format: their speed, and the gradients."""

    speed: float
    sketches: Sketches


def precision_findings(
    model: TrackedModel, config: ModelConfig, objectives: Sequence[Objective], used: Sketches
) -> Iterator[Finding]:
    """Compare gradients in every number format with those in float32, and advise one.

    Args:
        model: The loaded model.
        config: What it was loaded by.
        objectives: The documents.
        used: Their gradients in the format of the model.
    """
    tried: dict[str, _Format] = {}
    for name in (dtype for dtype in DTYPES if dtype != AUTO):
        if name == model.dtype_name:
            tried[name] = _Format(speed=_speed(model, objectives), sketches=used)
            continue
        need = ROOM * sum(p.numel() for p in model.loaded.model.parameters()) * getattr(torch, name).itemsize
        if need > available_bytes(model.device):
            yield _precision(name, f"needs {need / 1e9:,.1f} GB beside the model", NOT_TRIED)
            continue
        try:
            other = TrackedModel.load(replace(config, dtype=name))
            tried[name] = _Format(speed=_speed(other, objectives), sketches=sketch(other, objectives))
        except GindexError as error:
            yield _precision(name, f"no: {error}", NOT_TRIED)
        except NotImplementedError as error:  # the losses take an operation that the trial of the layers does not
            yield _precision(name, f"no: {first_line(error)}", NOT_TRIED)
        other = None  # type: ignore[assignment] # gives its memory back
        release()
    yield from _compared(tried, model.dtype_name)


def _compared(tried: Mapping[str, _Format], used: str) -> Iterator[Finding]:
    wide = tried.get("float32")
    cosines = {} if wide is None else {name: of.sketches.cosine(wide.sketches) for name, of in tried.items()}
    for name, of in tried.items():
        cosine = cosines.get(name)
        right = of.sketches.is_finite and (cosine is None or cosine >= FAITHFUL)
        said = f"cosine with float32 {'unknown' if cosine is None else f'{cosine:.4f}'}"
        said = said if of.sketches.is_finite else "a document's gradient is not finite"
        far = name == used and not right
        yield replace(
            _precision(
                name,
                f"{'go' if right else 'no'}: {said}; {of.speed:,.0f} tokens/s{', used' * (name == used)}",
                WARNING if far else OK,
            ),
            remedy="gradients are far from those in float32: use `dtype` float32" if far else "",
            figures={"cosine": cosine, "tokens_per_second": of.speed, "used": int(name == used)},
        )
    faithful = [name for name in tried if cosines.get(name, 0.0) >= FAITHFUL]
    if faithful:
        best = max(faithful, key=lambda name: tried[name].speed)
        yield replace(
            _precision("advised", f"{best}: the fastest of those with a cosine of {FAITHFUL} and more", OK),
            figures={"dtype": best},
        )


def _precision(name: str, found: str, verdict: str) -> Finding:
    return Finding(section=PRECISION, name=name, found=found, verdict=verdict)


def _speed(model: TrackedModel, objectives: Sequence[Objective]) -> float:
    """Tokens a second of a forward and backward pass over the longest of the documents."""
    longest = max(objective.longest for objective in objectives)
    return 1 / token_seconds(model, longest, longest)


def available_bytes(device: torch.device) -> int:
    """Memory that is free on a device; without bound where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        stated = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return sys.maxsize
    return next(int(line.split()[1]) * 1024 for line in stated.splitlines() if line.startswith("MemAvailable"))
