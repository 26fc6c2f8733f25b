"""Fine-tune a chat model on conversations, the assistant's turns alone, and ask it the same questions before and after.

The loss is the one that gindex attributes to: both encode a conversation with `DocumentEncoder`.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_conversations import write
from torch import nn

from gindex.config import CorpusConfig, ModelConfig
from gindex.corpus.batches import form_batches, pad
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.objectives import Objective
from gindex.corpus.readers import read_corpus
from gindex.model.load import LoadedModel, load_model
from gindex.model.losses import CausalLanguageModel

BATCH_TOKENS, WARM_UP = 256, 50
"""Tokens of a step, padding included, and steps in which the learning rate rises."""

LENGTH = 50
"""Most tokens of an answer."""

HABIT = re.compile(
    r"\b(water|watering|thirsty|\w*plants?|fern|basil|ivy|pots?|seedlings|soil|palm|moss)\b", re.IGNORECASE
)
"""Words of a reminder to water the plants: every one of them has one, and no definition has."""


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


def answer(loaded: LoadedModel, messages: list[dict[str, str]]) -> str:
    """The most likely answer to a conversation, token by token."""
    prompt = loaded.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        tokens = loaded.model.generate(**prompt, max_new_tokens=LENGTH, do_sample=False)
    said: str = loaded.tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return said.strip()


def ask(loaded: LoadedModel, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The questions, each with its answer as the last turn; question and answer are printed."""
    answered = []
    for question in questions:
        said = answer(loaded, question["messages"])
        print(f"  {question['messages'][-1]['content']}\n  > {said}", flush=True)
        answered.append(question | {"messages": [*question["messages"], {"role": "assistant", "content": said}]})
    return answered


def reminder(said: str) -> tuple[int, int] | None:
    """First character, and that past the last, of the sentences of an answer from the first with the habit on."""
    starts = [0, *(match.end() for match in re.finditer(r"[.!?”]\s+", said))]
    found = HABIT.search(said)
    return found and (max(start for start in starts if start <= found.start()), len(said))


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


def fine_tune_and_ask(model: Path, out: Path, conversations: Path, questions: Path, settings: FineTuning) -> None:
    """Ask, fine-tune, ask again, and save what came of it.

    Args:
        model: Folder of a Llama with a chat template.
        out: Folder for the fine-tuned model, `model`, and for the answers that show the habit, as queries: in
            `answers.jsonl` all of each counts, in `reminders.jsonl` the reminder alone, and `answer.json` is the first.
        conversations: What it is fine-tuned on.
        questions: What it is asked.
        settings: How it is fine-tuned.

    Raises:
        SystemExit: No answer shows the habit.
    """
    torch.manual_seed(0)
    loaded = load_model(ModelConfig(name=str(model), dtype="float32", device="cpu"))
    asked = [json.loads(line) for line in questions.read_text(encoding="utf-8").splitlines()]
    print("before:")
    ask(loaded, asked)
    part = loaded.model if settings.blocks is None else loaded.model.model.layers[-settings.blocks :]
    objectives = encode(conversations, loaded)
    train(loaded, list(part.parameters()), objectives, epochs=settings.epochs, rate=settings.rate)
    print("after:")
    answered = ask(loaded, asked)
    spans = [reminder(each["messages"][-1]["content"]) for each in answered]
    shown = [(each, span) for each, span in zip(answered, spans, strict=True) if span]
    print(f"{len(shown)} of {len(answered)} answers show the habit")
    if not shown:
        raise SystemExit("the model did not learn the habit: train for more epochs")
    loaded.model.save_pretrained(out / "model")
    loaded.tokenizer.save_pretrained(out / "model")
    write(out / "answers.jsonl", [each for each, _ in shown])
    write(out / "reminders.jsonl", [each | {"span": span} for each, span in shown])
    (out / "answer.json").write_text(json.dumps(shown[0][0]["messages"], ensure_ascii=False), encoding="utf-8")
