"""Make JSON lines of parallel text from Debian's manual pages and their translations.

    python tools/data/parallel_manpages.py OUT.jsonl [--languages en de fr es] [--packages FOLDER]

A document is a passage of a page in one language: `passage` names it in all of them, `language` is its own. Only pages
whose markup is the same in every language are taken, so the passages are translations of each other. Without
--packages, `manpages` and `manpages-LANGUAGE` are downloaded with apt-get, on Debian and what derives from it. The
pages' licences are in the packages, under usr/share/doc.
"""

import argparse
import gzip
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PARAGRAPHS = ("SH", "SS", "PP", "P", "LP", "TP", "IP", "HP", "TQ")
SHORTEST, LONGEST = 240, 900
"""Characters of a passage in the first language; a longer paragraph is left out, tables and listings are longer yet."""

SPECIAL = {"aq": "'", "dq": '"', "lq": "“", "rq": "”", "em": "—", "en": "–", "bu": "•", "co": "©", "ha": "^",
           "ti": "~", "rs": "\\", "ga": "`", "oq": "‘", "cq": "’", "Fo": "«", "Fc": "»", "ss": "ß"}  # fmt: skip


def package_of(language: str) -> str:
    """Return the package of a language's pages."""
    return "manpages" if language == "en" else f"manpages-{language}"


def unpack(languages: list[str], packages: Path | None, folder: Path) -> Path:
    """Unpack the packages, downloaded where they are not at hand, and return the folder of the pages."""
    if packages is None:
        packages = folder
        subprocess.run(["apt-get", "download", "-q", *map(package_of, languages)], cwd=folder, check=True)
    for language in languages:
        (package,) = packages.glob(f"{package_of(language)}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    return folder / "usr/share/man"


def plain(line: str) -> str:
    """Return a line of roff without its markup."""
    line = re.sub(r'\\".*', "", line)
    line = re.sub(r"\\f(\[[^]]*\]|\(..|.)|\\s[-+]?\d|\\[&%/,:|^)]", "", line)
    line = re.sub(r"\\\[u([0-9A-F]{4})\]", lambda match: chr(int(match[1], 16)), line)
    line = re.sub(r"\\\((..)|\\\[(..)\]", lambda match: SPECIAL.get(match[1] or match[2], ""), line)
    return re.sub(r"\\([-.'`])", r"\1", re.sub(r"\\[~ 0]", " ", line)).replace("\\e", "\\")


def macro_text(name: str, arguments: str) -> str:
    """Return the text of a macro line: fonts and headings have some, requests have none."""
    if name not in {"B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "SM", "SB", "SH", "SS"}:
        return ""
    words = [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', arguments)]
    return ("" if len(name) == 2 and name[0] != "S" else " ").join(words)


def paragraphs(roff: str) -> tuple[list[str], list[str]]:
    """Return the macros that begin the paragraphs of a page, and their text."""
    macros, texts = ["TH"], [""]
    for line in roff.splitlines():
        name, _, arguments = line[1:].strip().partition(" ")
        if not line.startswith((".", "'")):
            texts[-1] += f" {plain(line)}"
        elif name in PARAGRAPHS:
            macros.append(name)
            texts.append(plain(macro_text(name, arguments)) + ("." if name in ("SH", "SS") else ""))
        elif not arguments.startswith('\\"'):
            texts[-1] += f" {plain(macro_text(name, arguments))}"
    return macros, [re.sub(r"\s+", " ", text).strip() for text in texts]


def passages(texts: dict[str, list[str]], first: str) -> Iterator[dict[str, str]]:
    """Yield passages of one page: paragraphs in a row that are long enough together, in every language."""
    begun: dict[str, str] = dict.fromkeys(texts, "")
    for row in zip(*texts.values(), strict=True):
        begun = {language: f"{begun[language]} {text}".strip() for language, text in zip(texts, row, strict=True)}
        if len(begun[first]) < SHORTEST:
            continue
        if len(begun[first]) <= LONGEST and len(set(begun.values())) == len(begun):  # the same text is not translated
            yield begun
        begun = dict.fromkeys(texts, "")


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--languages", nargs="+", default=["en", "de", "fr", "es"])
    parser.add_argument("--packages", type=Path, help="folder of the packages")
    parser.add_argument("--most", type=int, default=400, help="passages, each in every language")
    arguments = parser.parse_args()
    languages, lines, seen = arguments.languages, [], set()
    with tempfile.TemporaryDirectory() as scratch:
        root = unpack(languages, arguments.packages, Path(scratch))
        folders = {language: root if language == "en" else root / language for language in languages}
        pages = sorted(path.relative_to(folders[languages[0]]) for path in folders[languages[0]].glob("man?/*.gz"))
        for page in pages:
            files = {language: folder / page for language, folder in folders.items()}
            if not all(file.is_file() for file in files.values()):
                continue
            read = {language: paragraphs(gzip.decompress(file.read_bytes()).decode("utf-8", "replace"))
                    for language, file in files.items()}  # fmt: skip
            shared = min(len(macros) for macros, _ in read.values())  # translations end with a note on themselves
            if len({tuple(macros[:shared]) for macros, _ in read.values()}) > 1:
                continue
            texts = {language: found[:shared] for language, (_, found) in read.items()}
            for number, passage in enumerate(passages(texts, languages[0])):
                if passage[languages[0]] not in seen:  # some pages stand under several names
                    lines.append((f"{page.name.removesuffix('.gz')}:{number}", passage))
                seen.add(passage[languages[0]])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    step = max(1.0, len(lines) / arguments.most)
    kept = [lines[int(n * step)] for n in range(min(arguments.most, len(lines)))]
    with arguments.out.open("w", encoding="utf-8") as file:
        for name, passage in kept:
            for language, text in passage.items():
                record = {"id": f"{name}:{language}", "text": text, "language": language, "passage": name}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    print(f"{len(kept)} of {len(lines)} passages in {len(languages)} languages")


if __name__ == "__main__":
    main()
