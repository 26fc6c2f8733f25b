r"""Where the time of a build's vectors goes: the model, its head, rotation, whitening, projection, codes.

    python tools/data/fetch_model.py && python tools/data/fetch_foldoc.py .cache/corpora/foldoc.jsonl
    python tools/benchmarks/build_profile.py --model .cache/models/SmolLM2-135M-Instruct \
        --text .cache/corpora/foldoc.jsonl

Every part is timed on its own, without the parts that it calls; what no part claims is the model's forward and backward
pass. Timers cost some microseconds a layer and batch. A plain frozen pass over the same batches stands beside the sum.
"""

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from build import cut, frozen_pass, make_path, model_parser, token_stream

import gindex.model.losses
import gindex.vectors.path
from gindex.config import ModelConfig, VectorConfig
from gindex.model.tracked import TrackedModel
from gindex.vectors.codes import encode
from gindex.vectors.encoder import Encoder

MODEL, HEAD = "model, forward and backward", "head: losses and their gradients"
ROTATION, WHITENING = "rotation of activations", "gradients of documents, rotated and whitened"
PROJECTION, CODES = "projection", "codes"


class Stopwatch:
    """Adds up the time of each part, without that of the parts within it."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._last = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time within as this part's."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def _switch(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._last
        self._last = now

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed as this part."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return call

    @contextmanager
    def watching(self, *places: tuple[Any, str, str]) -> Iterator[None]:
        """Time functions where they are looked up: owner, attribute, part."""
        before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in places]
        for (owner, attribute, name), (*_, function) in zip(places, before, strict=True):
            setattr(owner, attribute, self.timed(name, function))
        try:
            yield
        finally:
            for owner, attribute, function in before:
                setattr(owner, attribute, function)


def main() -> None:
    """Parse the options, run the passes and print the table."""
    parser = model_parser(__doc__)
    parser.add_argument("--length", type=int, default=128, help="tokens of a document")
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--batch-tokens", type=int, help="tokens of a batch; as a build takes them by default")
    parser.add_argument("--fraction", type=float, default=0.25, help="leading part of each eigenbasis")
    options = parser.parse_args()
    engine = TrackedModel.load(ModelConfig(name=options.model, dtype=options.dtype, device=options.device))
    path, config = make_path(engine, options.fraction, 3.0, VectorConfig()), VectorConfig()
    size = max(options.length, options.batch_tokens or engine.usual_batch_tokens)
    batches = cut(token_stream(engine, options.text), options.length, options.documents, size)
    slices = tuple(path.projection.spec.slices.values())

    def run(stopwatch: Stopwatch) -> None:
        for batch in batches:
            with stopwatch.part(MODEL):
                vectors = Encoder(model=engine, path=path).encode(batch).vectors
            with stopwatch.part(CODES):
                encode(vectors, config.bits, slices)[0].cpu()

    run(Stopwatch())  # the first pass warms up
    frozen_pass(engine, batches[:1])
    stopwatch, frozen, observer = Stopwatch(), Stopwatch(), gindex.vectors.path._VectorObserver
    with stopwatch.watching(
        (observer, "activations", ROTATION),
        (observer, "gradients", WHITENING),
        (type(path.projection), "add", PROJECTION),
        (gindex.model.losses, "head_losses", HEAD),
    ):
        run(stopwatch)
    with frozen.part(MODEL):
        frozen_pass(engine, batches)

    tokens, total = sum(batch.tokens.size for batch in batches), sum(stopwatch.seconds.values())
    print(f"{options.model}, {engine.dtype}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{len(batches)} batches of {batches[0].tokens.shape[0]} documents of {options.length} tokens\n")
    print("| part | ms a token | share |\n|---|---|---|")
    for name in (MODEL, HEAD, ROTATION, WHITENING, PROJECTION, CODES):
        print(f"| {name} | {1000 * stopwatch.seconds[name] / tokens:.3f} | {stopwatch.seconds[name] / total:.1%} |")
    print(f"| all | {1000 * total / tokens:.3f} | {total / frozen.seconds[MODEL]:.3f} of a frozen pass |")


if __name__ == "__main__":
    main()
