"""Fine-tuning of a small causal language model: the training function of language modelling.

A folder holds what is trained:

    FOLDER/model/            a causal language model of transformers, with its tokenizer
    FOLDER/documents.jsonl   documents to fine-tune on, in any form that `gindex build` reads, with `id`
    FOLDER/queries.jsonl     queries of any form
    FOLDER/recipe.json       how, where it differs from `FineTuningRecipe`
    FOLDER/tuned/            the model trained on all documents, made when a method first needs it
    FOLDER/index/            an index of the documents under that model, likewise

Axes: N documents, Q queries, T tokens.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gindex.config import (
    BuildConfig,
    CorpusConfig,
    CurvatureConfig,
    FidelityConfig,
    ModelConfig,
)
from gindex.corpus.batches import TokenBatch, batch_objectives
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.objectives import Objective
from gindex.corpus.readers import read_corpus
from gindex.errors import ConfigError
from gindex.files.atomic import checksum
from gindex.index import GradientIndex
from gindex.lab.evaluations.config import BM25, EXACT, FUNNEL, INDEX, RankingsConfig
from gindex.lab.evaluations.rankings import rank, scores_of
from gindex.lab.evaluations.training import Ordinals, Scores
from gindex.model.load import LoadedModel, load_model
from gindex.model.losses import CausalLanguageModel
from gindex.progress import Progress, Silent
from gindex.queries.files import read_queries
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
        max_tokens: Most tokens of a document that are trained on: those of its first part.
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
            ConfigError: The recipe is not one.
            CorpusError: Documents are missing, of no form, or malformed.
            QueryError: Queries are.
        """
        self.folder = Path(folder).resolve()  # an index knows its sources by their names
        self._documents = list(read_corpus([str(self.folder / "documents.jsonl")], CorpusConfig()))
        self.queries = read_queries(self.folder / "queries.jsonl")
        self.recipe = _read_recipe(self.folder / "recipe.json")
        self.documents = len(self._documents)

    @property
    def texts(self) -> list[str]:
        """The documents' texts, as they were read."""
        return [document.text for document in self._documents]

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

    def train(
        self, subset: Ordinals, seed: int, after_epoch: Callable[[int, torch.optim.Optimizer], None] | None = None
    ) -> nn.Module:
        """Fine-tune on a subset; the seed orders the batches.

        Args:
            subset: Ordinals of documents.
            seed: Seed of the order.
            after_epoch: Called after each epoch with the steps taken until then and the optimizer.

        Returns:
            The model, which the next training changes again.
        """
        model = self._task.model  # the task froze it
        model.load_state_dict(self._initial)
        model.requires_grad_(True)
        chosen = [self.objectives[n] for n in subset]
        batches = batch_objectives(chosen, np.asarray(subset), self.recipe.batch_tokens)
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.recipe.rate, weight_decay=0.0, fused=True)
        warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, len(batches))))
        generator = np.random.default_rng(seed)
        for epoch in range(1, self.recipe.epochs + 1):
            for number in generator.permutation(len(batches)):
                optimizer.zero_grad()
                self._step_loss(batches[number]).backward()
                optimizer.step()
                warm_up.step()
            if after_epoch is not None:
                after_epoch(epoch * len(batches), optimizer)
        model.requires_grad_(False)
        return model

    def losses(self) -> npt.NDArray[np.float64]:
        """The summed losses [Q] of the queries under the model as it was last trained, in nats."""
        losses_Q = np.zeros(len(self.queries))
        objectives = [tokens.objective for tokens in self.query_tokens]
        with torch.no_grad():
            for batch in batch_objectives(objectives, np.arange(len(objectives)), self.recipe.batch_tokens):
                losses_Q[batch.ordinals] = self._task.losses(batch).double().cpu().numpy()
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

    def _step_loss(self, batch: TokenBatch) -> Tensor:
        """The mean loss of a batch: over the tokens that count, or over preferences."""
        losses_N = self._task.losses(batch)
        counted = len(losses_N) if batch.preferences else int(batch.targets.sum())
        return losses_N.sum() / counted

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
    def objectives(self) -> list[Objective]:
        """What is trained on of each document.

        Raises:
            ConfigError: No token of a document counts.
            GindexError: A document cannot be read by this model.
        """
        longest = min(self.recipe.max_tokens, self._loaded.max_tokens)
        encoder = DocumentEncoder(self._loaded.tokenizer, CorpusConfig(max_tokens=longest), self._task.vocabulary)
        encoded = encoder.encode(self._documents)
        for each in encoded:
            if not each.parts:
                raise ConfigError(
                    field=f"document {each.document.document_id!r}",
                    expected="a token that counts",
                    found="none",
                    remedy="remove it",
                )
        return [each.parts[0].objective for each in encoded]

    @cached_property
    def query_tokens(self) -> Sequence[QueryTokens]:
        """The queries as the model reads them."""
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
