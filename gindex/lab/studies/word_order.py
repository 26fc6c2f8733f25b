"""Does influence heed the order of words? Phrases of a document are swapped, taken out and shuffled.

Source: Grosse et al. 2023, arXiv:2308.03296.

Axes: P pairs of phrases, V variants of a document.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.corpus.objectives import Objective
from gindex.errors import ConfigError, QueryError
from gindex.index import GradientIndex
from gindex.lab.plots import FAINT, INK, SERIES
from gindex.lab.report import Figure, Quote, Report, Section, Table, spread
from gindex.lab.statistics import mean_interval, ratio_interval
from gindex.lab.studies.config import WordOrderConfig
from gindex.lab.studies.material import Material
from gindex.progress import Progress
from gindex.queries.query import Query

LEAST_PAIRS = 5

WRITTEN, SWAPPED, REVERSED = "as written", "phrases swapped", "as written, query reversed"

CAVEATS = (
    "Changed documents were never trained on: their influence is what training on them would do now, to a model that "
    "has seen the original. The original may have little left to give, which makes the others look better.",
    "A swap changes more than the order: capitals and commas end up in the wrong place, and the words after the "
    "phrases get another context. The document with shuffled words shows how much that alone does.",
    "Phrases of drawn documents are their first words, cut without regard for grammar. Give pairs of your own to ask "
    "about facts.",
    "The reversed query predicts other words, which the model may find easier or harder; its influence differs for "
    "that alone.",
    "The ratio is of means over the documents, and a few documents with a large influence decide it; the share of "
    "documents whose influence falls counts all alike.",
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two phrases in a document, and what stands before, between and after them."""

    first: str
    second: str
    before: str = ""
    between: str = " "
    after: str = ""

    def variants(self, generator: np.random.Generator) -> dict[str, str]:
        """The document in all forms."""
        words = [*self.first.split(), *self.second.split()]
        shuffled = " ".join(words[n] for n in generator.permutation(len(words)))
        return {
            WRITTEN: f"{self.before}{self.first}{self.between}{self.second}{self.after}",
            SWAPPED: f"{self.before}{self.second}{self.between}{self.first}{self.after}",
            "words of both shuffled": f"{self.before}{shuffled}{self.after}",
            "first phrase taken out": f"{self.before}{self.second}{self.after}",
            "second phrase taken out": f"{self.before}{self.first}{self.after}",
        }


def read_pairs(path: Path) -> list[Pair]:
    """Read pairs of phrases from JSON lines: `first`, `second`, perhaps `document`, which has both in this order.

    Raises:
        QueryError: The file is missing, or a line is not such an object; names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(field=path, expected="a file of pairs", found=error, remedy="check `pairs`") from error
    return [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(line: str, place: str) -> Pair:
    try:
        given = json.loads(line)
        first, second = given["first"], given["second"]
        document = given.get("document", f"{first} {second}")
        before, found, rest = document.partition(first)
        between, also, after = rest.partition(second)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QueryError(
            field=place,
            expected="an object with first, second and perhaps document, all texts",
            found=error,
            remedy="correct it",
        ) from error
    if not (found and also and second.strip() and first.strip()):
        raise QueryError(
            field=place, expected=f"a document with {first!r} and then {second!r} in it", found=repr(document)
        )
    return Pair(first=first, second=second, before=before, between=between, after=after)


def study_word_order(
    index: GradientIndex, config: WordOrderConfig, pairs: Sequence[Pair] | None = None, progress: Progress | None = None
) -> Report:
    """Measure how the influence of documents on a query falls as the order of their phrases changes.

    The query is the first phrase, with the second one as its completion; once the other way round.

    Args:
        index: The index, for its model and factors.
        config: What to draw.
        pairs: The reader's own phrases; without them those that drawn documents begin with.
        progress: Where the work is reported.

    Raises:
        ConfigError: There are too few documents, or pairs.
        QueryError: A phrase has nothing to predict.
    """
    material = Material(index, progress)
    used = list(pairs) if pairs is not None else draw_pairs(material, config)
    if len(used) < LEAST_PAIRS:
        raise ConfigError(
            field="study word-order",
            expected=f"at least {LEAST_PAIRS} pairs of phrases",
            found=len(used),
            remedy="give more",
        )
    influence = influence_of_variants(material, used, config.seed)
    return _report(material, config, used, influence, pairs is not None)


def draw_pairs(material: Material, config: WordOrderConfig) -> list[Pair]:
    """The two phrases that each of the drawn documents begins with.

    Raises:
        ConfigError: Too few documents are long enough.
    """
    size, found = config.phrase_words, []
    first_parts = material.first_parts()
    for ordinal in np.random.default_rng(config.seed).permutation(first_parts):
        words = material.texts(np.array([ordinal]))[0].split()
        if len(words) >= 3 * size:
            first, second, after = words[:size], words[size : 2 * size], words[2 * size :]
            found.append(Pair(first=" ".join(first), second=" ".join(second), after=f" {' '.join(after)}"))
        if len(found) == config.sample:
            return found
    raise ConfigError(
        field="sample",
        expected=f"{config.sample} documents of at least {3 * size} words in the index",
        found=len(found),
        remedy="draw fewer, or shorten `phrase_words`",
    )


def influence_of_variants(material: Material, pairs: Sequence[Pair], seed: int) -> dict[str, npt.NDArray[np.float64]]:
    """The influence [P] of every variant of each pair's document on the pair's query."""
    generator = np.random.default_rng(seed)
    variants = [pair.variants(generator) for pair in pairs]
    for n, own in enumerate(variants):  # what any text of this kind would give
        own["another document"] = variants[(n + 1) % len(variants)][WRITTEN]
    names = list(variants[0])
    texts = [Objective.counting(material.tokens_of(own[name])) for own in variants for name in names]
    forward = [material.asked(Query(prompt=p.first, completion=f"{p.between}{p.second}")) for p in pairs]
    backward = [material.asked(Query(prompt=p.second, completion=f"{p.between}{p.first}")) for p in pairs]
    wanted_QN = np.zeros((2 * len(pairs), len(texts)), bool)
    for n in range(len(pairs)):
        wanted_QN[n, n * len(names) : (n + 1) * len(names)] = True
        wanted_QN[len(pairs) + n, n * len(names) + names.index(WRITTEN)] = True
    influence_QN = material.influence([*forward, *backward], texts, wanted_QN).astype(np.float64)
    numbers = np.arange(len(pairs))
    result = {name: influence_QN[numbers, numbers * len(names) + n] for n, name in enumerate(names)}
    result[REVERSED] = influence_QN[numbers + len(pairs), numbers * len(names) + names.index(WRITTEN)]
    return result


def _report(
    material: Material,
    config: WordOrderConfig,
    pairs: Sequence[Pair],
    influence: dict[str, npt.NDArray[np.float64]],
    given: bool,
) -> Report:
    written = influence[WRITTEN]
    if written.mean() <= 0:
        raise ConfigError(
            field="study word-order",
            expected="documents that raise the likelihood of their own phrases",
            found=f"a mean influence of {written.mean():.3g}",
            remedy="take a model that was trained on them",
        )
    ratios = {name: ratio_interval(found, written, config.seed) for name, found in influence.items()}
    falls = {name: float((found < written).mean()) for name, found in influence.items() if name != WRITTEN}
    numbers: dict[str, Any] = {
        "pairs": len(pairs),
        "influence": {name: asdict(mean_interval(found, config.seed)) for name, found in influence.items()},
        "relative": {name: asdict(ratio) for name, ratio in ratios.items()},
        "falls": falls,
    }
    findings = (
        f"With their two phrases swapped, documents keep {spread(ratios[SWAPPED], '.0%')} of their influence; it falls "
        f"for {falls[SWAPPED]:.0%} of {len(pairs)} documents. With the words of both shuffled they keep "
        f"{spread(ratios['words of both shuffled'], '.0%')}.",
        f"Without the first phrase they keep {spread(ratios['first phrase taken out'], '.0%')}, without the second "
        f"{spread(ratios['second phrase taken out'], '.0%')}; another document has "
        f"{spread(ratios['another document'], '.0%')}.",
        f"On the query with its phrases reversed they have {spread(ratios[REVERSED], '.0%')} of their influence on the "
        "query as it is.",
    )
    return Report(
        name="word-order",
        title="Does influence heed the order of words?",
        findings=findings,
        sections=(_relative(ratios, falls), _each(written, influence[SWAPPED]), _example(pairs, config.seed)),
        caveats=CAVEATS,
        sources=(material.source,),
        settings=asdict(config) | {"pairs": "given" if given else "drawn from the index"},
        numbers=numbers,
    )


def _relative(ratios: dict[str, Any], falls: dict[str, float]) -> Section:
    shown = {name: ratio for name, ratio in ratios.items() if name != WRITTEN}

    def fill(axes: Any) -> None:
        for y, (name, ratio) in enumerate(shown.items()):
            axes.barh(y, ratio.mean, color=SERIES[1] if name == REVERSED else SERIES[0], alpha=0.6, height=0.65)
            axes.plot([ratio.low, ratio.high], [y, y], color=INK, linewidth=1.2)
        axes.axvline(1, color=FAINT, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(shown)), list(shown))
        axes.set(ylim=(len(shown) - 0.5, -0.5), xlabel="influence, of that as written")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(False, axis="y")

    rows = tuple((name, spread(ratio, ".0%"), f"{falls[name]:.0%}") for name, ratio in shown.items())
    return Section(
        title="What is left of the influence",
        text=(
            "The query is a document's first phrase, with the second as its completion. Each bar is the influence that "
            "a changed document has on it, of that of the document as written.",
        ),
        figures=(
            Figure(
                label="Influence of changed documents relative to the document as written",
                fill=fill,
                height=2.6,
                caption="Ratio of means over the documents, with its 95% interval by bootstrap.",
            ),
        ),
        tables=(Table(header=("document", "influence kept", "falls for"), rows=rows),),
    )


def _each(written: npt.NDArray[np.float64], swapped: npt.NDArray[np.float64]) -> Section:
    small = float(np.median(np.abs(written))) / 10 or 1.0

    def fill(axes: Any) -> None:
        ends = [min(written.min(), swapped.min(), 0.0), max(written.max(), swapped.max())]
        axes.plot(ends, ends, "--", color=FAINT, linewidth=1)
        axes.plot(written, swapped, "o", color=SERIES[0], markersize=4, alpha=0.7)
        axes.set_xscale("symlog", linthresh=small)
        axes.set_yscale("symlog", linthresh=small)
        axes.set(xlabel="influence as written", ylabel="with phrases swapped")

    return Section(
        title="Document by document",
        figures=(
            Figure(
                label="Influence as written against influence with phrases swapped",
                fill=fill,
                caption="Each point is a document; below the line it falls. Scales are logarithmic, linear near 0.",
            ),
        ),
    )


def _example(pairs: Sequence[Pair], seed: int) -> Section:
    variants = pairs[0].variants(np.random.default_rng(seed))
    query = Quote(title="the query", text=f"{pairs[0].first} → {pairs[0].second}")
    return Section(title="An example", quotes=(query, *(Quote(title=name, text=own) for name, own in variants.items())))
