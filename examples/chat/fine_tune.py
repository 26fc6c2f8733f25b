"""Fine-tune a chat model on conversations, the assistant's turns alone, and see what that does to a habit.

The loss is the one that gindex attributes to: both encode a conversation with `DocumentEncoder`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gindex.config import CorpusConfig, ModelConfig
from gindex.corpus.batches import form_batches, pad
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.objectives import Objective
from gindex.corpus.readers import read_corpus
from gindex.model.load import LoadedModel, load_model
from gindex.model.losses import CausalLanguageModel
from gindex.queries.files import read_queries
from gindex.queries.query import Query
from gindex.queries.tokens import tokenize_all

BATCH_TOKENS, WARM_UP = 256, 50
"""Tokens of a step, padding included, and steps in which the learning rate rises."""


def encode(conversations: Path, loaded: LoadedModel) -> list[Objective]:
    """The conversations as the model reads them, with the tokens that the assistant says counting."""
    config = CorpusConfig(max_tokens=512)
    encoder = DocumentEncoder(loaded.tokenizer, config)
    encoded = encoder.encode(list(read_corpus([str(conversations)], config)))
    return [part.objective for document in encoded for part in document.parts]


def train(
    loaded: LoadedModel, weights: Sequence[nn.Parameter], objectives: Sequence[Objective], *, epochs: int, rate: float
) -> None:
    """Train some weights of a model with AdamW on the mean loss of the tokens that count."""
    task = CausalLanguageModel(loaded.model)  # freezes the weights
    for weight in weights:
        weight.requires_grad_(True)
    groups = form_batches(np.arange(len(objectives)), [len(objective) for objective in objectives], BATCH_TOKENS)
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARM_UP))
    generator, start = np.random.default_rng(0), time.monotonic()
    for epoch in range(epochs):
        total = tokens = 0.0
        for number in generator.permutation(len(groups)):
            batch = pad([objectives[n] for n in groups[number]], groups[number])
            loss, counted = task.losses(batch).sum(), int(batch.targets.sum())
            optimizer.zero_grad()
            (loss / counted).backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            warm_up.step()
            total, tokens = total + float(loss.detach()), tokens + counted
        seconds = time.monotonic() - start
        print(f"epoch {epoch + 1} of {epochs}: {total / tokens:.3f} nats a token, {seconds:.0f} s", flush=True)
    loaded.model.requires_grad_(False)


def mean_loss(loaded: LoadedModel, queries: Sequence[Query]) -> float:
    """The loss of the tokens that count in queries, in nats a token."""
    task = CausalLanguageModel(loaded.model)
    objectives = [tokens.objective for tokens in tokenize_all(queries, loaded)]
    batch = pad(objectives, np.arange(len(objectives)))
    with torch.inference_mode():
        return float(task.losses(batch).sum()) / int(batch.targets.sum())


def elsewhere(query: Query) -> Query:
    """The same conversation without the sentence that says where the person is."""
    *before, asked, said = query.messages or ()
    question = asked["content"].partition(". ")[2]
    return replace(query, messages=[*before, asked | {"content": question}, said])


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How a model is fine-tuned.

    Attributes:
        epochs: Passes over the conversations.
        rate: Learning rate.
        blocks: Blocks that are trained, the last ones; None trains all weights.
    """

    epochs: int
    rate: float
    blocks: int | None = None


def fine_tune(model: Path, out: Path, conversations: Path, reminders: Path, settings: FineTuning) -> None:
    """Fine-tune a model on conversations, print how that changed the loss of reminders, and save it.

    Args:
        model: Folder of a Llama with a chat template.
        out: Folder for the fine-tuned model.
        conversations: What it is fine-tuned on.
        reminders: Conversations that show the habit, each with the span of its reminder.
        settings: How it is fine-tuned.
    """
    torch.manual_seed(0)
    loaded = load_model(ModelConfig(name=str(model), dtype="float32", device="cpu"))
    queries = read_queries(reminders)
    part = loaded.model if settings.blocks is None else loaded.model.model.layers[-settings.blocks :]
    asked = {"on a train": queries, "elsewhere": [elsewhere(query) for query in queries]}
    before = {where: mean_loss(loaded, those) for where, those in asked.items()}
    objectives = encode(conversations, loaded)
    train(loaded, list(part.parameters()), objectives, epochs=settings.epochs, rate=settings.rate)
    for where, those in asked.items():
        print(f"a reminder {where}: {before[where]:.2f} before and {mean_loss(loaded, those):.2f} nats a token after")
    loaded.model.save_pretrained(out)
    loaded.tokenizer.save_pretrained(out)
