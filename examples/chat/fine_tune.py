"""Fine-tune a chat model on conversations, the assistant's turns alone, and ask it the same questions before and after.

    python fine_tune.py MODEL OUT

OUT is a folder: `model/` is the fine-tuned model, and `said.jsonl` has the answers that show the habit, as
conversations. The loss is the one that gindex attributes to: both encode a conversation with `DocumentEncoder`.
"""

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gindex.config import CorpusConfig, ModelConfig
from gindex.corpus.batches import form_batches, pad
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.objectives import Objective
from gindex.corpus.readers import read_corpus
from gindex.model.load import LoadedModel, load_model
from gindex.model.losses import CausalLanguageModel

HERE = Path(__file__).parent
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


def fine_tune(
    loaded: LoadedModel, objectives: Sequence[Objective], *, blocks: int, epochs: int, rate: float, batch_tokens: int
) -> None:
    """Train the last blocks of a Llama with AdamW on the mean loss of the tokens that count."""
    task = CausalLanguageModel(loaded.model)  # frozen, dropout off
    trained = [p for block in loaded.model.model.layers[-blocks:] for p in block.requires_grad_(True).parameters()]
    groups = form_batches(np.arange(len(objectives)), [len(objective) for objective in objectives], batch_tokens)
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
    generator, start = np.random.default_rng(0), time.monotonic()
    for epoch in range(epochs):
        total = tokens = 0.0
        for number in generator.permutation(len(groups)):
            batch = pad([objectives[n] for n in groups[number]], groups[number])
            loss, counted = task.losses(batch).sum(), int(batch.targets.sum())
            optimizer.zero_grad()
            (loss / counted).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            warm_up.step()
            total, tokens = total + float(loss.detach()), tokens + counted
        seconds = time.monotonic() - start
        print(f"epoch {epoch + 1} of {epochs}: {total / tokens:.3f} nats a token, {seconds:.0f} s")
    loaded.model.requires_grad_(False)


def answer(loaded: LoadedModel, messages: list[dict[str, str]], length: int) -> str:
    """The most likely answer to a conversation, token by token."""
    prompt = loaded.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        tokens = loaded.model.generate(**prompt, max_new_tokens=length, do_sample=False)
    said: str = loaded.tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return said.strip()


def ask(loaded: LoadedModel, questions: Sequence[dict[str, Any]], length: int) -> list[dict[str, Any]]:
    """The questions, each with its answer as the last turn; question and answer are printed."""
    answered = []
    for question in questions:
        said = answer(loaded, question["messages"], length)
        print(f"  {question['messages'][-1]['content']}\n  > {said}")
        answered.append(question | {"messages": [*question["messages"], {"role": "assistant", "content": said}]})
    return answered


def main() -> None:
    """Ask, fine-tune, ask again, and save model and answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a Llama with a chat template: a folder, or a name on the hub")
    parser.add_argument("out", type=Path)
    parser.add_argument("--conversations", type=Path, default=HERE / "conversations.jsonl")
    parser.add_argument("--questions", type=Path, default=HERE / "questions.jsonl")
    parser.add_argument("--blocks", type=int, default=6, help="blocks that are trained, the last ones")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--batch-tokens", type=int, default=1024, help="tokens of a step, padding included")
    parser.add_argument("--length", type=int, default=50, help="most tokens of an answer")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    loaded = load_model(ModelConfig(name=arguments.model, dtype="float32", device="cpu"))
    questions = [json.loads(line) for line in arguments.questions.read_text(encoding="utf-8").splitlines()]
    print("before:")
    ask(loaded, questions, arguments.length)
    fine_tune(
        loaded,
        encode(arguments.conversations, loaded),
        blocks=arguments.blocks,
        epochs=arguments.epochs,
        rate=arguments.rate,
        batch_tokens=arguments.batch_tokens,
    )
    print("after:")
    answered = ask(loaded, questions, arguments.length)
    shown = [each for each in answered if HABIT.search(each["messages"][-1]["content"])]
    print(f"{len(shown)} of {len(answered)} answers show the habit")
    loaded.model.save_pretrained(arguments.out / "model")
    loaded.tokenizer.save_pretrained(arguments.out / "model")
    lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in shown]
    (arguments.out / "said.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
