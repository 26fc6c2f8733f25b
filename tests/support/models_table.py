"""The page of model families and storage forms, written from outcomes and read again."""

import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import UnionType

import torch
import transformers
from against_autograd import HALF_COSINE, NARROW_TOLERANCE, TOLERANCE, Outcome, Refused, Right
from families import FAMILIES, Family
from forms import Form
from storage_forms import FORMS

COMMAND = "python -m pytest tests/families --write-table"

HEAD = """\
# Models: which families and storage forms are right, and which are refused

`{command}`, {today}, {versions},
{machine}.
Without `--write-table` the same command checks every outcome against the catalogues, `tests/support/families.py` and
`tests/support/storage_forms.py`.

Of {families} families {right_families} are right and the others refused; of {forms} storage forms {right_forms}.
Every entry is a folder with random weights and a tokenizer, a few blocks of width 32, loaded as a build loads it.
*Right* means: the document gradients of every tracked layer, of four documents in one padded batch and of each alone,
are those of plain autograd, one document at a time in float64. *Refused* means an error of one line before any work.
There is no third outcome. Random weights say nothing of how true influence is on a trained model of the family.

* **float64**, **float32**: largest relative error of a document's gradient in a layer, the model in that format; up to
  {tolerance:.0e} and {narrow:.0e} pass. **refine**: the same of the Gauss-Newton product of `--refine`, in float32.
* **bfloat16**: cosine of all gradients with those in float64; more than {cosine} passes, since routers and other
  choices of a model with random weights fall otherwise in 16 bits.
* **body**: share of the weights, embeddings and output head apart, that is tracked at this size. `gindex build
  --dry-run` says what is left out of a published model.
"""

ROW = re.compile(r"^\| (?P<name>[^|]+) \| (?P<outcome>right|refused) \|", re.MULTILINE)


def read(page: str) -> dict[str, str]:
    """Return the outcome, `right` or `refused`, of each family and form on the page."""
    return {row["name"]: row["outcome"] for row in ROW.finditer(page)}


def render(outcomes: Mapping[str, Outcome]) -> str:
    """Return the page.

    Args:
        outcomes: What was found, by name of family or form; all of them.
    """
    return "\n".join([_head(outcomes), *_families(outcomes), "", *_forms(outcomes), ""])


def _head(outcomes: Mapping[str, Outcome]) -> str:
    def right(entries: Sequence[Family] | Sequence[Form]) -> int:
        return sum(isinstance(outcomes[entry.name], Right) for entry in entries)

    return HEAD.format(
        command=COMMAND,
        today=date.today(),
        versions=f"transformers {transformers.__version__}, torch {torch.__version__}",
        machine=_machine(),
        families=len(FAMILIES),
        right_families=right(FAMILIES),
        forms=len(FORMS),
        right_forms=right(FORMS),
        tolerance=TOLERANCE,
        narrow=NARROW_TOLERANCE,
        cosine=HALF_COSINE,
    )


def _families(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    yield "| family | outcome | body | float64 | float32 | refine | bfloat16 |"
    yield "|---|---|---|---|---|---|---|"
    for family in FAMILIES:
        found = outcomes[family.name]
        if isinstance(found, Right):
            half = "refused" if found.half_cosine is None else f"{found.half_cosine:.3f}"
            errors = " | ".join(f"{e:.0e}" for e in (found.error, found.narrow_error, found.product_error))
            yield f"| {family.name} | right | {found.body:.0%} | {errors} | {half} |"
    yield ""
    yield from _said("family", FAMILIES, outcomes, Refused)


def _forms(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    yield "## Storage forms of one model"
    yield ""
    yield from _said("form", FORMS, outcomes, Outcome)


def _said(
    what: str, entries: Sequence[Family] | Sequence[Form], outcomes: Mapping[str, Outcome], kind: type | UnionType
) -> Iterator[str]:
    """List the entries whose outcomes are of a kind, with what a refusal says, without its remedy."""
    yield f"| {what} | outcome | found |"
    yield "|---|---|---|"
    for entry in entries:
        found = outcomes[entry.name]
        if isinstance(found, kind):
            said = _shown(found.message) if isinstance(found, Refused) else ""
            yield f"| {entry.name} | {'refused' if said else 'right'} | {said} |"


def _shown(message: str) -> str:
    """Return what a message expected and found, as a cell of a table: neither the folder's path nor the remedy."""
    text = re.sub(r"/\S*/(?=[^/\s:]*)", "", message).removeprefix("model: ")
    return text.rpartition("; ")[0].replace("|", "/") or text


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.is_file() else []
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"
