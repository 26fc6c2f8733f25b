"""Does influence cross languages? Passages and their translations, each a query to all others.

Source: Grosse et al. 2023, arXiv:2308.03296.

Axes: Q queries, N parts, P passages, L languages, D documents (passage by language).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.documents.words import words_in
from gindex.errors import ConfigError
from gindex.index import GradientIndex
from gindex.lab.plots import shade
from gindex.lab.report import Figure, Report, Section, Table, spread
from gindex.lab.statistics import area_under_curve, mean_interval
from gindex.lab.studies.config import CrossLingualConfig
from gindex.lab.studies.material import Material
from gindex.progress import Progress
from gindex.queries.tokens import QueryTokens

Scores = npt.NDArray[np.float64]

LEAST_PASSAGES = 10
"""Fewest passages in all languages: a translation is ranked among those of the others."""

CAVEATS = (
    "Translations share names, numbers, options and loan words. How well these alone find a translation is shown "
    "beside, and taken out of the influence where that is said. Only a straight line is, fitted to all passages of a "
    "language, and the translation shares more words than any other: what is left need not be meaning.",
    "Translations also share their length and their place on a page, which influence may follow.",
    "The share of a language depends on how much text of it is in the index, and on how well the model knows it; the "
    "table of what is indexed is given.",
    "A small model trained on little text need not have what lets a large one generalise across languages. That "
    "influence stays within a language here says nothing of larger models, where Grosse and others saw it cross more "
    "the larger the model.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Parallel:
    """Documents of an index that are translations of each other.

    Attributes:
        languages: L names, in the order of the documents.
        passages: P names.
        parts: For each passage and language the ordinals of its parts, [P][L].
    """

    languages: list[str]
    passages: list[str]
    parts: list[list[list[int]]]


def study_cross_lingual(index: GradientIndex, config: CrossLingualConfig, progress: Progress | None = None) -> Report:
    """Measure the influence of passages on their translations.

    Args:
        index: The index; its documents have metadata fields for language and passage.
        config: Which fields, and what to draw.
        progress: Where the work is reported.

    Raises:
        ConfigError: The fields are missing, or too few passages are in every language.
    """
    material = Material(index, progress)
    parallel = find_parallel(material, config)
    drawn = np.sort(np.random.default_rng(config.seed).permutation(len(parallel.passages))[: config.sample])
    influence_QPL = _influence(material, parallel, drawn)
    overlap_QPL = _overlap(material, parallel, drawn)
    return _report(material, config, parallel, drawn, influence_QPL, overlap_QPL)


def find_parallel(material: Material, config: CrossLingualConfig) -> Parallel:
    """Find the passages that are in the index in every language.

    Raises:
        ConfigError: The fields are missing, or too few passages are in every language.
    """
    found: dict[str, dict[str, dict[str, list[int]]]] = {}  # passage, language, document
    fields: set[str] = set()
    for part in material.table.parts(material.usable):
        fields |= part.metadata.keys()
        language, passage = part.metadata.get(config.language_field), part.metadata.get(config.passage_field)
        if language is not None and passage is not None:
            own = found.setdefault(str(passage), {}).setdefault(str(language), {})
            own.setdefault(part.document_id, []).append(part.ordinal)
    languages = list(dict.fromkeys(language for own in found.values() for language in own))
    if len(languages) < 2:
        known = ", ".join(sorted(fields)) or "none"
        raise ConfigError(
            field="study cross-lingual",
            expected=(
                f"documents in at least two languages, with metadata fields {config.language_field!r} and "
                f"{config.passage_field!r}"
            ),
            found=f"{len(languages)} and the fields {known}",
            remedy="name them with `language_field` and `passage_field`, or index a corpus that has them",
        )
    whole = [name for name, own in found.items() if len(own) == len(languages)]
    if len(whole) < max(LEAST_PASSAGES, config.sample):
        raise ConfigError(
            field="study cross-lingual",
            expected=f"at least {max(LEAST_PASSAGES, config.sample)} passages in all of {', '.join(languages)}",
            found=len(whole),
            remedy="draw fewer with `sample`, or index more",
        )
    parts = [[next(iter(found[name][language].values())) for language in languages] for name in whole]
    return Parallel(languages=languages, passages=whole, parts=parts)


def _influence(material: Material, parallel: Parallel, drawn: npt.NDArray[np.int64]) -> Scores:
    """The influence [Q, P, L] of every document, a sum over its parts, on the first parts of those drawn."""
    first = [parts[0] for passage in drawn for parts in parallel.parts[passage]]
    queries = [QueryTokens(objective) for objective in material.table.objectives(first)]
    ordinals = np.array([ordinal for own in parallel.parts for parts in own for ordinal in parts], np.int64)
    document = np.array([n for n, parts in enumerate(p for own in parallel.parts for p in own) for _ in parts])
    wanted_QN = np.ones((len(queries), len(ordinals)), bool)
    influence_QN = material.influence(queries, material.table.objectives(ordinals), wanted_QN)
    influence_QD = np.zeros((len(queries), len(parallel.passages) * len(parallel.languages)))
    np.add.at(influence_QD.T, document, influence_QN.T.astype(np.float64))
    return influence_QD.reshape(len(queries), len(parallel.passages), len(parallel.languages))


def _overlap(material: Material, parallel: Parallel, drawn: npt.NDArray[np.int64]) -> Scores:
    """The share [Q, P, L] of the words of a query and a document that are in both."""
    texts = [[" ".join(material.texts(np.array(parts, np.int64))) for parts in own] for own in parallel.parts]
    words = [[set(words_in(text)) for text in own] for own in texts]
    overlap = [
        [[len(asked & other) / max(len(asked | other), 1) for other in own] for own in words]
        for passage in drawn
        for asked in words[passage]
    ]
    return np.array(overlap)


def translation_ranks(scores_QPL: Scores, drawn: npt.NDArray[np.int64], languages: int) -> Scores:
    """Return, by the query's and the document's language, how high translations stand [L, L, drawn].

    The figure is the share of the other passages of a language that the query's own one stands above; NaN in its own
    language, where it would be the query itself.
    """
    ranks = np.full((languages, languages, len(drawn)), np.nan)
    for query, scores_PL in enumerate(scores_QPL):
        place, source = divmod(query, languages)
        others = np.arange(len(scores_PL)) != drawn[place]
        for target in range(languages):
            if target != source:
                own = scores_PL[drawn[place], target]
                ranks[source, target, place] = area_under_curve(own[None], scores_PL[others, target])
    return ranks


def without(scores_QPL: Scores, explained_by_QPL: Scores) -> Scores:
    """Take out of scores what a straight line through another measure explains, by query and language."""
    rest = np.empty_like(scores_QPL)
    for query in range(len(scores_QPL)):
        for language in range(scores_QPL.shape[2]):
            x, y = explained_by_QPL[query, :, language], scores_QPL[query, :, language]
            centred = x - x.mean()
            slope = float(centred @ y) / (float(centred @ centred) or 1.0)
            rest[query, :, language] = y - slope * centred
    return rest


def language_shares(influence_QPL: Scores, drawn: npt.NDArray[np.int64], languages: int) -> Scores:
    """The share [L, L, drawn] of each language in the positive influence of other passages on a query."""
    shares = np.zeros((languages, languages, len(drawn)))
    for query, influence_PL in enumerate(influence_QPL):
        place, source = divmod(query, languages)
        others = np.arange(len(influence_PL)) != drawn[place]
        positive_L = np.maximum(influence_PL[others], 0).sum(0)
        shares[source, :, place] = positive_L / (positive_L.sum() or 1.0)
    return shares


def _report(
    material: Material,
    config: CrossLingualConfig,
    parallel: Parallel,
    drawn: npt.NDArray[np.int64],
    influence_QPL: Scores,
    overlap_QPL: Scores,
) -> Report:
    names, count = parallel.languages, len(parallel.languages)
    ranks = {
        "influence": translation_ranks(influence_QPL, drawn, count),
        "shared words": translation_ranks(overlap_QPL, drawn, count),
        "influence without shared words": translation_ranks(without(influence_QPL, overlap_QPL), drawn, count),
    }
    shares = language_shares(influence_QPL, drawn, count)
    overall = {name: mean_interval(np.nanmean(found, axis=(0, 1)), config.seed) for name, found in ranks.items()}
    first = {name: float((found[~np.isnan(found)] == 1).mean()) for name, found in ranks.items()}
    within = mean_interval(np.stack([shares[n, n] for n in range(count)]).mean(0), config.seed)
    numbers: dict[str, Any] = {
        "passages": len(parallel.passages),
        "languages": names,
        "translation_above": {name: asdict(interval) for name, interval in overall.items()},
        "translation_first": first,
        "by_languages": {name: _pairs(names, found) for name, found in ranks.items()},
        "share_within_language": asdict(within),
        "shares": {a: {b: float(shares[n, m].mean()) for m, b in enumerate(names)} for n, a in enumerate(names)},
    }
    findings = (
        f"The translation of a passage has more influence on it than {spread(overall['influence'], '.0%')} of the "
        f"other passages of its language, and the most of all for {first['influence']:.0%}. Half would be chance.",
        f"Shared words alone place it above {spread(overall['shared words'], '.0%')}; with what they explain taken "
        f"out, influence still does above {spread(overall['influence without shared words'], '.0%')}.",
        f"{spread(within, '.0%')} of the positive influence of other passages comes from the query's own language; "
        f"{1 / count:.0%} would be even.",
    )
    return Report(
        name="cross-lingual",
        title="Does influence cross languages?",
        findings=findings,
        sections=(*_matrices(names, ranks, shares), _indexed(material, parallel)),
        caveats=CAVEATS,
        sources=(material.source,),
        settings=asdict(config),
        numbers=numbers,
    )


def _pairs(names: list[str], ranks: Scores) -> dict[str, dict[str, float | None]]:
    return {
        a: {b: None if n == m else float(ranks[n, m].mean()) for m, b in enumerate(names)} for n, a in enumerate(names)
    }


def _matrices(names: list[str], ranks: dict[str, Scores], shares: Scores) -> tuple[Section, Section]:
    def drawn(label: str, values: Scores, caption: str) -> Figure:
        def fill(axes: Any) -> None:
            shade(axes, values.tolist(), names, names, ".0%")
            axes.set(xlabel="language of the document", ylabel="language of the query", title=label)

        return Figure(label=label, fill=fill, caption=caption, width=4.2, height=1.1 + 0.42 * len(names))

    captions = {
        "influence": "Mean share of the other passages in that language that the translation stands above; 50% is "
        "chance.",
        "shared words": "The same by the share of words that two passages have in common.",
        "influence without shared words": "The same after the effect of shared words is taken out.",
    }
    found = Section(
        title="Finding the translation",
        figures=tuple(drawn(name, own.mean(2), captions[name]) for name, own in ranks.items()),
    )
    divided = Section(
        title="Where influence comes from",
        figures=(
            drawn(
                "positive influence by language",
                shares.mean(2),
                "Share of each language in the positive influence of other passages; a row adds up to 100%.",
            ),
        ),
    )
    return found, divided


def _indexed(material: Material, parallel: Parallel) -> Section:
    lengths = material.table.part_lengths()
    rows = []
    for n, language in enumerate(parallel.languages):
        tokens = [int(lengths[own[n]].sum()) for own in parallel.parts]
        rows.append((language, f"{len(tokens):,}", f"{sum(tokens):,}", f"{np.mean(tokens):.0f}"))
    example = parallel.parts[0]
    return Section(
        title="What is indexed",
        tables=(Table(header=("language", "passages", "tokens", "tokens a passage"), rows=tuple(rows)),),
        quotes=tuple(
            material.quote(parts[0], language) for parts, language in zip(example, parallel.languages, strict=True)
        ),
    )
