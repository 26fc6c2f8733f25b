"""Fine-tuning of a small causal language model: the training function of language modelling.

A folder holds what is trained:

    FOLDER/model/            a causal language model of transformers, with its tokenizer
    FOLDER/documents.jsonl   documents to fine-tune on: objects with `text` and `id`
    FOLDER/queries.jsonl     queries: objects with `prompt` and perhaps `completion` and `id`
    FOLDER/recipe.json       how, where it differs from `FineTuningRecipe`
    FOLDER/tuned/            the model trained on all documents, made when a method first needs it
    FOLDER/index/            an index of the documents under that model, likewise

Axes: N documents, Q queries, T tokens.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gindex.config import (
    BuildConfig,
    CurvatureConfig,
    FidelityConfig,
    ModelConfig,
)
from gindex.corpus.batches import form_batches, pad
from gindex.corpus.objectives import Objective
from gindex.corpus.tokens import tokenize
from gindex.errors import ConfigError, GindexError
from gindex.files.atomic import checksum
from gindex.index import GradientIndex
from gindex.lab.evaluations.config import BM25, EXACT, FUNNEL, INDEX, RankingsConfig
from gindex.lab.evaluations.rankings import rank, scores_of
from gindex.lab.evaluations.training import Ordinals, Scores
from gindex.model.load import LoadedModel, load_model
from gindex.model.losses import CausalLanguageModel
from gindex.progress import Progress, Silent
from gindex.queries.query import Query
from gindex.queries.tokens import QueryTokens, tokenize_all

CANDIDATES = 100
"""Documents that the funnel of a small corpus re-ranks."""


@dataclass(frozen=True, kw_only=True)
class FineTuningRecipe:
    """How the model is fine-tuned: AdamW without weight decay, a warm-up of one epoch, then a constant rate.

    Attributes:
        epochs: Passes over the documents.
        rate: Learning rate.
        batch_tokens: Tokens of a step, padding included.
        max_tokens: Tokens of a document that are trained on, the first ones.
    """

    epochs: int = 3
    rate: float = 1e-3
    batch_tokens: int = 1024
    max_tokens: int = 512

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_tokens, self.max_tokens) < 1 or not 0 < self.rate < float("inf"):
            raise ConfigError(field="recipe", expected="positive numbers", found=asdict(self))


class FineTuning:
    """Fine-tunes the model of a folder on some of its documents: a training function."""

    def __init__(self, folder: str | Path) -> None:
        """Read documents, queries and recipe; the model is loaded at the first training.

        Args:
            folder: See the module's header.

        Raises:
            ConfigError: A file is missing, or not what it should be.
        """
        self.folder = Path(folder).resolve()  # an index knows its sources by their names
        records = _read_lines(self.folder / "documents.jsonl", "text")
        self.texts = [str(record["text"]) for record in records]
        self.queries = [
            Query(prompt=record["prompt"], completion=record.get("completion"), id=record.get("id"))
            for record in _read_lines(self.folder / "queries.jsonl", "prompt")
        ]
        self.recipe = _read_recipe(self.folder / "recipe.json")
        self.documents = len(self.texts)

    @property
    def source(self) -> str:
        """What stands for the data in the checksum of an experiment."""
        names = ("documents.jsonl", "queries.jsonl", "model/model.safetensors")
        present = [self.folder / name for name in names if (self.folder / name).is_file()]
        return json.dumps([asdict(self.recipe), *(checksum(path) for path in present)])

    def __call__(self, subset: Ordinals, seed: int) -> npt.NDArray[np.float64]:
        """The summed losses [Q] of the queries, in nats, after fine-tuning on a subset."""
        self.train(subset, seed)
        return self.losses()

    def train(self, subset: Ordinals, seed: int) -> nn.Module:
        """Fine-tune on a subset; the seed orders the batches.

        Args:
            subset: Ordinals of documents.
            seed: Seed of the order.

        Returns:
            The model, which the next training changes again.
        """
        model = self._task.model  # the task froze it
        model.load_state_dict(self._initial)
        model.requires_grad_(True)
        batches = self._batches(subset)
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.recipe.rate, weight_decay=0.0, fused=True)
        warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, len(batches))))
        generator = np.random.default_rng(seed)
        for _ in range(self.recipe.epochs):
            for number in generator.permutation(len(batches)):
                losses_N, tokens = self._step_losses(batches[number])
                optimizer.zero_grad()
                (losses_N.sum() / tokens).backward()
                optimizer.step()
                warm_up.step()
        model.requires_grad_(False)
        return model

    def losses(self) -> npt.NDArray[np.float64]:
        """The summed losses [Q] of the queries under the model as it was last trained, in nats."""
        losses_Q = np.zeros(len(self.queries))
        lengths = np.array([len(query.objective) for query in self._query_tokens])
        with torch.no_grad():
            for group in form_batches(np.arange(len(lengths)), lengths, self.recipe.batch_tokens):
                batch = pad([self._query_tokens[n].objective for n in group], group)
                losses_Q[group] = self._task.losses(batch).double().cpu().numpy()
        return losses_Q

    def methods(self) -> Mapping[str, Callable[[], Scores]]:
        """Methods by name: stored scores, exact influence, both in the funnel's order, and BM25."""
        return {
            INDEX: lambda: self.scores(INDEX),
            EXACT: lambda: self.scores(EXACT),
            FUNNEL: lambda: _places(self.scores(INDEX), self.scores(EXACT)),
            BM25: lambda: self.scores(BM25),
        }

    def scores(self, method: str, progress: Progress | None = None) -> Scores:
        """A method's scores [Q, N] from the index of the documents."""
        index = self.index(progress)
        rankings = rank(index, self.queries, method, self.documents, RankingsConfig(), progress or Silent())
        return scores_of(rankings, index.ids())

    def index(self, progress: Progress | None = None) -> GradientIndex:
        """The index of all documents under the model that was trained on them, with the usual settings.

        Raises:
            ConfigError: A document of the file is not in the index.
        """
        tuned, folder = self.folder / "tuned", self.folder / "index"
        if not tuned.is_dir():
            self.train(np.arange(self.documents), 0)
            self.save(tuned)
        config = BuildConfig(
            model=ModelConfig(name=str(tuned), dtype="float32"),
            curvature=CurvatureConfig(fit_documents=None),
            fidelity=FidelityConfig(queries=0),
        )
        index = GradientIndex.build([str(self.folder / "documents.jsonl")], folder, config, progress=progress)
        if len(index.ids()) != self.documents:
            raise ConfigError(
                field=folder,
                expected=f"{self.documents} documents",
                found=len(index.ids()),
                remedy="give each of them in documents.jsonl an id of its own and some text",
            )
        return index

    def save(self, out: Path) -> None:
        """Save the model as it was last trained, with its tokenizer, to a folder that isn't there yet: whole or not."""
        partial = out.with_name(f"{out.name}.partial")
        self._loaded.model.save_pretrained(partial)  # type: ignore[operator]
        self._loaded.tokenizer.save_pretrained(partial)
        partial.rename(out)

    def _batches(self, subset: Ordinals) -> list[Ordinals]:
        lengths = np.array([len(self._texts[n]) for n in subset])
        return form_batches(subset, lengths, self.recipe.batch_tokens)

    def _step_losses(self, group: Ordinals) -> tuple[Tensor, int]:
        texts = [self._texts[n] for n in group]
        losses_N = self._task.losses(pad(texts, group))
        return losses_N, max(1, sum(text.targets for text in texts))

    @cached_property
    def _loaded(self) -> LoadedModel:
        name = str(self.folder / "model")
        return load_model(ModelConfig(name=name, dtype="float32"))

    @cached_property
    def _task(self) -> CausalLanguageModel:
        return CausalLanguageModel(self._loaded.model)

    @cached_property
    def _initial(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._loaded.model.state_dict().items()}

    @cached_property
    def _texts(self) -> list[Objective]:
        longest = min(self.recipe.max_tokens, self._loaded.max_tokens)
        return [Objective.counting(ids[:longest]) for ids, _ in tokenize(self._loaded.tokenizer, self.texts)]

    @cached_property
    def _query_tokens(self) -> Sequence[QueryTokens]:
        return tokenize_all(self.queries, self._loaded)


def _places(score_QN: Scores, exact_QN: Scores, candidates: int = CANDIDATES) -> Scores:
    """Minus the place of each document in the funnel's order: the best by score, re-ranked, then the rest."""
    places_QN = np.empty_like(score_QN)
    for places_N, score_N, exact_N in zip(places_QN, score_QN, exact_QN, strict=True):
        by_score = np.argsort(-score_N, kind="stable")
        first, rest = by_score[:candidates], by_score[candidates:]
        places_N[[*first[np.argsort(-exact_N[first], kind="stable")], *rest]] = -np.arange(len(score_N))
    return places_QN


def _read_recipe(path: Path) -> FineTuningRecipe:
    if not path.is_file():
        return FineTuningRecipe()
    try:
        return FineTuningRecipe(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            field=path, expected=f"settings of {asdict(FineTuningRecipe())}", found=error, remedy="correct it"
        ) from error


def _read_lines(path: Path, field: str) -> list[dict[str, Any]]:
    try:
        records = list(_records(path, field))
    except GindexError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(
            field=path, expected=f"JSON lines with {field!r}", found=error, remedy="write one object a line"
        ) from error
    if not records:
        raise ConfigError(field=path, expected=f"at least one line with {field!r}", found="none")
    return records


def _records(path: Path, field: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record.get(field), str):
                raise ConfigError(
                    field=f"{path}:{number}", expected=f"an object with text in {field!r}", found=line[:80]
                )
            yield record
