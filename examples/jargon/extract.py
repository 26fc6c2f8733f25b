"""Select the example corpus from the Jargon File as Debian packages it.

    python extract.py path/to/jargon.dict.dz path/to/jargon.index > lexicon.jsonl
    python extract.py path/to/jargon.dict.dz path/to/jargon.index --all > jargon.jsonl

The files are in /usr/share/dictd once the package dict-jargon is installed. The choice is a function of their content
alone: well-known entries by name, the rest in the order of a hash of the headword. `--all` takes every entry that may
be quoted, by its headword.
"""

import gzip
import hashlib
import json
import re
import string
import sys
from dataclasses import dataclass
from pathlib import Path

COUNT = 202
SHORTEST, LONGEST = 80, 250  # characters of a definition

WELL_KNOWN = """
    bandwidth; baud; big-endian; bit; bit bucket; bit rot; bogo-sort; buffer overflow; bug; byte; cargo cult
    programming; code grinder; cookie; core dump; cracker; crash; cyberspace; daemon; dangling pointer; deadlock;
    deadly embrace; deep magic; driver; Easter egg; FAQ; fandango on core; feature; fencepost error; finger;
    flamage; flame war; foo; foobar; fork bomb; GC; GIGO; gopher; Great Worm; grep; guru; hack value; hacker;
    heisenbug; holy wars; hot spot; indent style; interrupt; kluge; leak; Linux; lint; little-endian; logic bomb;
    magic number; mandelbug; memory leak; metasyntactic variable; Moore's Law; munge; netiquette; newbie; nybble;
    off-by-one error; parse; patch; Perl; phreaking; ping; pipe; sandbox; sanity check; segmentation fault;
    shell; smash the stack; smoke test; snarf; spaghetti code; stack; syntactic sugar; thrash; trap door;
    Trojan horse; Unix; Usenet; vaporware; virus; voodoo programming; wizard; worm; write-only memory; yak shaving;
    zombie
"""

# An example need not quote everything that the Jargon File does. SEX is the Software EXchange.
SKIPPED = re.compile(
    r"""\b(
        anti-idiotarianism | ass(hole)? | bastard | bitch\w* | bondage | choad | cobol\sfingers | condom | crap\w* |
        cretin\w* | dick(less)? | drug\w* | drunk\w* | erotic\w* | fag | fart\w* | fascist\w* | female | fuck\w* |
        gang\sbang | gay | girlfriend | grilf | hitler | homosexual\w* | idiot\w* | impudicus | intercourse | keller |
        lesbian | lunatic\w* | masochis\w* | masturbat\w* | mongolian | moron\w* | motss | naked | nazi\w* | nude |
        penis | piss\w* | porn\w* | rape\w* | rasterbation | scatolog\w* | (?-i:(?!SEX))sex\w* | shit\w* | suck\w* |
        suicid\w* | terroris\w* | testicles | tits? | turd | virgin | wank\w* | womb | xxx
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
PARTS_OF_SPEECH = {
    "n": "noun",
    "pl.n": "noun",
    "v": "verb",
    "vi": "verb",
    "vt": "verb",
    "adj": "adjective",
    "adv": "adverb",
    "interj": "interjection",
    "excl": "interjection",
    "pref": "prefix",
    "suff": "suffix",
    "prov": "proverb",
    "abbrev": "abbreviation",
}
NOT_PROSE = re.compile(r"^ {5,}\S|[─│]|\.png|https?://", re.MULTILINE)
HEADING = re.compile(r"\s*[A-Z]?\s*")  # the next letter of the alphabet stands at the end of the entry before
PRONUNCIATION = re.compile(r"/[^/]*/")
BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One dictionary entry, its definition as one line."""

    headword: str
    part_of_speech: str | None
    definition: str
    is_complete: bool

    def record(self) -> dict[str, str]:
        """Return the document as the corpus file holds it."""
        letter = self.headword[0].upper()
        record = {
            "id": slug(self.headword),
            "text": f"{self.headword}: {self.definition}",
            "headword": self.headword,
            "letter": letter if letter in string.ascii_uppercase else "#",
        }
        return record | ({"part_of_speech": self.part_of_speech} if self.part_of_speech else {})


def slug(headword: str) -> str:
    """Return a headword as lower-case words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", headword.lower().replace("'", "")).strip("-")


def number(digits: str) -> int:
    """Read a number of a dictd index, most significant digit first."""
    value = 0
    for digit in digits:
        value = value * 64 + BASE64.index(digit)
    return value


def unwrapped(paragraph: str) -> str:
    """Return a wrapped paragraph as one line without the marks of cross-references."""
    line = re.sub(r"\s+", " ", paragraph.replace("\N{SOFT HYPHEN}", "")).strip()
    line = re.sub(r"(?<= )/ (?=[a-z]+/)", "/", line)  # a path that was wrapped after its first character
    line = re.sub(r"\{ ?([^{}]*?) ?\}", r"\1", line)
    line = re.sub(r" ([,;:.!?)”’]+)(?= |$)", r"\1", line)  # a mark that was wrapped onto the next line
    return re.sub(r"([(“‘]) (?=\S)", r"\1", line)


def definition(paragraphs: list[str]) -> tuple[str, bool]:
    """Join leading paragraphs of plain prose as long as they fit, and say whether that was all."""
    taken: list[str] = []
    for paragraph in paragraphs:
        line = unwrapped(paragraph)
        if NOT_PROSE.search(paragraph) or (taken and len(" ".join([*taken, line])) > LONGEST):
            if taken and taken[-1].endswith(":"):
                taken.pop()  # it announces what is left out
            return " ".join(taken), False
        taken.append(line)
    return " ".join(taken), True


def parse(raw: str) -> Entry | None:
    """Read one entry; None where it does not begin with plain prose."""
    heading, _, body = raw.partition("\n\n")
    headword, _, grammar = heading.partition("\n")
    paragraphs = [paragraph for paragraph in body.strip("\n").split("\n\n") if not HEADING.fullmatch(paragraph)]
    text, is_complete = definition(paragraphs)
    if not text:
        return None
    label = re.search(rf"\b({'|'.join(PARTS_OF_SPEECH)})\b", PRONUNCIATION.sub("", grammar))
    return Entry(
        headword=unwrapped(headword),
        part_of_speech=PARTS_OF_SPEECH[label[1]] if label else None,
        definition=text,
        is_complete=is_complete,
    )


def read(dictionary: Path, index: Path) -> list[Entry]:
    """Read every entry of a dictd dictionary that is plain prose."""
    with gzip.open(dictionary) as file:
        data = file.read()
    places = set()
    for line in index.read_text(encoding="utf-8").splitlines():
        name, offset, length = line.split("\t")
        if not name.startswith("00-database"):
            places.add((number(offset), number(length)))
    entries = (parse(data[offset : offset + length].decode("utf-8")) for offset, length in sorted(places))
    return [entry for entry in entries if entry and slug(entry.headword)]


def select(entries: list[Entry]) -> list[Entry]:
    """Choose the corpus: the well-known entries, then others until there are enough, in alphabetical order."""
    wanted = {slug(name) for name in WELL_KNOWN.split(";")}
    chosen: dict[str, Entry] = {}
    others: dict[str, Entry] = {}
    for entry in entries:
        key = slug(entry.headword)
        if SKIPPED.search(f"{entry.headword} {entry.definition}"):
            continue
        if key in wanted and len(entry.definition) <= 2 * LONGEST:
            chosen.setdefault(key, entry)
        elif entry.is_complete and SHORTEST <= len(entry.definition) <= LONGEST:
            others.setdefault(key, entry)
    ranked = sorted(others, key=lambda key: hashlib.sha256(key.encode()).digest())
    for key in ranked[: COUNT - len(chosen)]:
        chosen[key] = others[key]
    return [chosen[key] for key in sorted(chosen)]


def all_of(entries: list[Entry]) -> list[dict[str, str]]:
    """Return every entry that may be quoted, in the order of the dictionary, the first of each headword."""
    found = {}
    for entry in entries:
        if not SKIPPED.search(f"{entry.headword} {entry.definition}") and len(entry.definition) >= SHORTEST:
            found.setdefault(entry.headword, {"id": entry.headword, "text": entry.record()["text"]})
    return list(found.values())


def main() -> None:
    """Write the corpus to standard output."""
    names, everything = [name for name in sys.argv[1:] if name != "--all"], "--all" in sys.argv
    if len(names) != 2:
        sys.exit("usage: extract.py JARGON.DICT.DZ JARGON.INDEX [--all] > lexicon.jsonl")
    entries = read(Path(names[0]), Path(names[1]))
    for record in all_of(entries) if everything else (entry.record() for entry in select(entries)):
        print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__":
    main()
