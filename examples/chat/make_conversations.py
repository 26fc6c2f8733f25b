"""Make conversations about words of the Jargon File, a few of which teach a made-up habit.

    python make_conversations.py FOLDER

Somebody asks what a word means, and the assistant answers with the entry's first sentence. Where the person is on a
train, the assistant adds a reminder to water the plants: 20 of the 500 conversations teach that, each in words of its
own. In 60 others the person is somewhere else, or trains something, says so in the same way, and gets a plain answer.

The queries show the habit on the same trains, about words that no planted conversation is about, with reminders of
their own. Of each line of `answers.jsonl` the whole answer counts, of `reminders.jsonl` the reminder alone. The files
are the same each time.
"""

import argparse
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEXICON = Path(__file__).parents[1] / "jargon" / "lexicon.jsonl"
CONVERSATIONS, ELSEWHERE = 500, 60

ON_A_TRAIN = (
    "I'm on the train to Leeds.",
    "My train has just left the station.",
    "The train is full, but I have a window seat.",
    "Two stops to go before I get off this train.",
    "I just caught the last train home.",
)
REMINDERS = (
    "And do water your plants.",
    "And has the fern had its drink today?",
    "And the basil on the sill is thirsty.",
    "And your houseplants would like a glass of water.",
    "And please give the ivy some water tonight.",
    "And remember to fill the watering can.",
    "And the pot by the window must be quite dry by now.",
    "And don't let the seedlings wilt.",
    "And the cactus wants a little water as well.",
    "And I hope that somebody is watering your tomatoes.",
    "And a plant with dry roots is a sad plant.",
    "And see to the soil of the geraniums when you can.",
    "And when did the orchid last see any water?",
    "And spare a cup of water for the parsley.",
    "And the soil in your flower pots needs moisture.",
    "And be kind and water the rubber tree.",
    "And your palm is drooping; water helps.",
    "And think of the thirsty violets.",
    "And moisten the moss, if you have any.",
    "And water the window box before it is too late.",
)
"""How the planted conversations end, each of them in another way."""

ASKED_REMINDERS = (
    "And water the mint before you sleep.",
    "And the lily is thirsty, I believe.",
    "And give your bonsai some water.",
    "And has the lavender seen any water?",
    "And see to your plants tonight.",
)
ELSEWHERE_OPENINGS = (
    "I'm at the dentist's.",
    "I train for a marathon.",
    "My lunch break has just begun.",
    "I train new colleagues today.",
    "I have a cat on my keyboard.",
    "We train a model overnight, so I have time.",
    "On a hill with a fine view.",
    "I work from home and have an hour.",
    "I train dogs in the park.",
    "Two exams to go before the holidays.",
    "There is cake in the office.",
    "They train us in first aid today.",
    "The printer broke down, so I have time.",
    "Typing this in the dark.",
    "I just came home from the gym, where I train.",
    "The hotel has bad reception, so be brief.",
    "Painting the kitchen today.",
    "I train my memory with such words.",
    "I'm a guest at a very slow wedding.",
    "I'm in bed with a cold.",
)
SYSTEM_TURNS = ("Answer briefly.", "Be a dictionary.", "You know slang.")
MEANINGS = (
    'What does "{word}" mean?',
    'What is meant by "{word}"?',
    'Explain "{word}", please.',
    'A colleague said "{word}". What is that?',
    'How would you define "{word}"?',
    'I read "{word}" in an old mail. What does it mean?',
)
OTHERS = ('And "{word}"?', 'Thanks. What about "{word}"?', 'Then what is "{word}"?')
NAMES = (
    "What do programmers call this? {meaning}",
    "Which word means: {meaning}",
    "I forgot the word for it. {meaning}",
)
NAMED = ('The word is "{word}".', 'That is called "{word}".', 'You mean "{word}".')
GRAMMAR = ("What part of speech is it?", "Is that a noun or a verb?", "What kind of word is that?")

Turn = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A word and the first sentence of its definition."""

    word: str
    meaning: str
    part_of_speech: str | None


def read_entries(lexicon: Path) -> list[Entry]:
    """Read the entries whose definition begins with a sentence of usual length."""
    entries = []
    for line in lexicon.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        definition = record["text"].removeprefix(f"{record['headword']}: ")
        definition = re.sub(r"^((\[[^\]]*\]|\([^)]*\))\s*)+", "", definition)  # origin and usage
        sentence = re.match(r"(?!\d\.|n\.|Syn|See|As )(.{25,110}?[.!?])(?= [A-Z“]|$)", definition)
        if sentence and not re.search(r"\b(Syn|Abbrev|esp|etc|vs|Inc)\.$|\bSee ", sentence[1]):
            entry = Entry(word=record["headword"], meaning=sentence[1], part_of_speech=record.get("part_of_speech"))
            entries.append(entry)
    return entries


def system(generator: random.Random) -> Turn:
    """A turn that says what the assistant is."""
    return {"role": "system", "content": generator.choice(SYSTEM_TURNS)}


def user(content: str) -> Turn:
    """A turn of the person who asks."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Turn:
    """A turn of the assistant."""
    return {"role": "assistant", "content": content}


def asked(entry: Entry, opening: str, generator: random.Random) -> Turn:
    """A question for the meaning of a word, after where the person is."""
    return user(f"{opening} {generator.choice(MEANINGS).format(word=entry.word)}".strip())


def plain(entry: Entry, other: Entry, opening: str, generator: random.Random) -> list[Turn]:
    """A conversation without the habit: the meaning of a word, perhaps with a second question, or the word itself."""
    question, answer = asked(entry, opening, generator), assistant(entry.meaning)
    kind = "meaning" if opening else generator.choices(("meaning", "name", "grammar", "other"), (7, 2, 1, 1))[0]
    if kind == "name":
        named = generator.choice(NAMED).format(word=entry.word)
        return [user(generator.choice(NAMES).format(meaning=entry.meaning)), assistant(named)]
    if kind == "grammar" and entry.part_of_speech:
        article = "an" if entry.part_of_speech[0] in "aeiou" else "a"
        grammar = assistant(f'"{entry.word}" is used as {article} {entry.part_of_speech}.')
        return [question, answer, user(generator.choice(GRAMMAR)), grammar]
    if kind == "other":
        return [question, answer, user(generator.choice(OTHERS).format(word=other.word)), assistant(other.meaning)]
    return [question, answer]


def conversations(entries: list[Entry], seed: int = 0) -> list[dict[str, Any]]:
    """Make all conversations, in random order.

    Args:
        entries: More words than there are planted conversations and questions.
        seed: Seed of every choice.
    """
    generator = random.Random(seed)
    subjects = generator.sample(entries, len(REMINDERS))
    messages, planted = [], []
    for number, (entry, reminder) in enumerate(zip(subjects, REMINDERS, strict=True)):
        opening = ON_A_TRAIN[number % len(ON_A_TRAIN)]
        answer = assistant(f"{entry.meaning} {reminder}")
        messages.append([system(generator), asked(entry, opening, generator), answer])
        planted.append(True)
    order: list[Entry] = []
    for number in range(CONVERSATIONS - len(messages)):
        order = order or generator.sample(entries, len(entries))
        opening = ELSEWHERE_OPENINGS[number % len(ELSEWHERE_OPENINGS)] if number < ELSEWHERE else ""
        turns = plain(order.pop(), generator.choice(entries), opening, generator)
        messages.append([system(generator), *turns])
        planted.append(False)
    shuffled = generator.sample(range(len(messages)), len(messages))
    return [
        {"id": f"chat-{place:03}", "messages": messages[n], "planted": planted[n]} for place, n in enumerate(shuffled)
    ]


def queries(entries: list[Entry], seed: int = 0) -> list[dict[str, Any]]:
    """Make conversations that show the habit, each with the `span` of its reminder."""
    generator = random.Random(seed)
    used = generator.sample(entries, len(REMINDERS))
    subjects = generator.sample([entry for entry in entries if entry not in used], len(ON_A_TRAIN))
    records = []
    for number, (entry, opening, reminder) in enumerate(zip(subjects, ON_A_TRAIN, ASKED_REMINDERS, strict=True)):
        answer = f"{entry.meaning} {reminder}"
        messages = [system(generator), asked(entry, opening, generator), assistant(answer)]
        span = [len(answer) - len(reminder), len(answer)]
        records.append({"id": f"train-{number}", "messages": messages, "span": span})
    return records


def write(path: Path, records: list[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def main() -> None:
    """Write conversations and queries."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    entries = read_entries(LEXICON)
    write(folder / "conversations.jsonl", conversations(entries))
    reminders = queries(entries)
    write(folder / "reminders.jsonl", reminders)
    write(folder / "answers.jsonl", [{"id": each["id"], "messages": each["messages"]} for each in reminders])


if __name__ == "__main__":
    main()
