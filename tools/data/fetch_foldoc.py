"""Make JSON lines of FOLDOC, the Free On-line Dictionary of Computing, from Debian's package `dict-foldoc`.

    python tools/data/fetch_foldoc.py OUT.jsonl [--package dict-foldoc_*.deb]

The corpus of the benchmarks. Without --package it is downloaded with apt-get, on Debian and what derives from it.
FOLDOC is edited by Denis Howe, http://foldoc.org, under the GNU Free Documentation License.
"""

import argparse
import gzip
import json
import re
import subprocess
import tempfile
from pathlib import Path

PACKAGE = "dict-foldoc"
MEMBER = "usr/share/dictd/foldoc.dict.dz"
SHORTEST, LONGEST = 120, 1200  # characters of a document

SOURCE_NOTE = re.compile(r"\s*(\[\{?Jargon File\}?\]|\(\d{4}-\d\d-\d\d\)|\{.*?wiki entry\s*\(.*?\)\}\.?)", re.DOTALL)


def download(folder: Path) -> Path:
    """Download the package with apt-get."""
    subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=folder, check=True)
    (package,) = folder.glob("*.deb")
    return package


def text_of(package: Path, folder: Path) -> str:
    """Unpack the dictionary's text."""
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    with gzip.open(folder / MEMBER) as file:
        return file.read().decode("utf-8", errors="replace")


def documents(text: str) -> dict[str, str]:
    """Return the entries by headword: one line of headword and definition, references as plain words."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S[^\n]*\n(?:\S[^\n]*\n)*\n   )", text):
        heading, _, body = block.partition("\n\n")
        headword = heading.strip().split("\n")[0]
        body = re.sub(r"\{([^{}]*?)(?:\s*\([^)]*\))?\}", r"\1", SOURCE_NOTE.sub("", body))
        definition = re.sub(r"\s+", " ", body).strip()
        document = f"{headword}: {definition}"
        if not definition.startswith("<"):  # the subject; pages about the dictionary itself have none
            continue
        if SHORTEST <= len(document) <= LONGEST and headword not in found:
            found[headword] = document
    return found


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--package", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        text = text_of(arguments.package or download(folder), folder)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("w", encoding="utf-8") as file:
        for headword, document in documents(text).items():
            file.write(json.dumps({"id": headword, "text": document}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
