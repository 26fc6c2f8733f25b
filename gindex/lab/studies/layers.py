"""Where in the model the influence sits, for queries of different types.

Source: Grosse et al. 2023, arXiv:2308.03296.

Axes: L layers, S layer groups or kinds of layers, Q queries, N parts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.corpus.objectives import Objective
from gindex.errors import ConfigError
from gindex.exact.fidelity import FidelityQueries
from gindex.index import GradientIndex
from gindex.lab.plots import SERIES, shade
from gindex.lab.report import Figure, Report, Section, Table, spread
from gindex.lab.statistics import mean_interval
from gindex.lab.studies.config import LayersConfig
from gindex.lab.studies.material import Material, Ranked
from gindex.progress import Progress
from gindex.queries.query import Query
from gindex.queries.tokens import QueryTokens

Shares = npt.NDArray[np.float64]

LEAST_QUERIES = 6
"""Fewest queries that can be divided into three types."""

CAVEATS = (
    "Influence by layer is what a change of that layer's weights alone would do. Layers work together, and EK-FAC "
    "takes their curvature to be independent; a large share does not mean that the layer stores the fact.",
    "Only tracked layers have a share: embeddings, norms and an untracked output head have none here.",
    "A layer with more weights has more room for influence; the table gives each group's share of the weights beside.",
    "The types of drawn queries come from the model's own loss. They stand for how well it predicts a text, not for "
    "what the text is about; give files of queries to compare subjects or tasks.",
)


def study_layers(
    index: GradientIndex,
    config: LayersConfig,
    queries: Mapping[str, Sequence[Query]] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Measure which layers the influence of the most influential parts comes from.

    Args:
        index: The index; exact influence is recomputed for every part that is ranked.
        config: What to draw.
        queries: The reader's own by type; without them parts of the index are drawn, divided by their loss into three
            types, and taken a second time with their words shuffled.
        progress: Where the work is reported.

    Raises:
        ConfigError: There are too few documents or parts.
    """
    material = Material(index, progress)
    most = material.count(config.parts) // 2
    if config.top > most:
        raise ConfigError(
            field="top",
            expected=f"at most {most}, half of the parts that are ranked",
            found=config.top,
            remedy="rank or index more",
        )
    asked, types = _given(material, queries) if queries else _drawn(material, config)
    ranked = material.rank(asked, config.parts, config.seed, by_layer=True)
    return _report(material, config, ranked, types, bool(queries))


def _given(material: Material, queries: Mapping[str, Sequence[Query]]) -> tuple[FidelityQueries, list[str]]:
    types = [name for name, some in queries.items() for _ in some]
    tokens = [material.asked(query) for some in queries.values() for query in some]
    return FidelityQueries(tokens=tokens, documents=np.full(len(tokens), -1)), types


def _drawn(material: Material, config: LayersConfig) -> tuple[FidelityQueries, list[str]]:
    """Draw queries; name a third of them by how well the model predicts it, and take all again in disorder."""
    if config.sample < LEAST_QUERIES:
        raise ConfigError(
            field="sample", expected=f"at least {LEAST_QUERIES} queries for three types", found=config.sample
        )
    drawn = material.queries(config.sample, config.seed)
    order = np.argsort(np.argsort(material.losses(drawn.tokens), kind="stable"))
    third = len(order) / 3
    types = [("well predicted", "middling", "badly predicted")[int(place / third)] for place in order]
    generator = np.random.default_rng(config.seed)
    tokenizer = material.index.model.tracked.loaded.tokenizer
    shuffled, documents = [], []
    for query, document in zip(drawn.tokens, drawn.documents, strict=True):
        words = tokenizer.decode(query.objective.texts[0].ids, skip_special_tokens=True).split()
        tokens = material.tokens_of(" ".join(words[n] for n in generator.permutation(len(words))))
        if len(tokens):
            shuffled.append(QueryTokens(Objective.counting(tokens)))
            documents.append(int(document))
    return FidelityQueries(
        tokens=[*drawn.tokens, *shuffled], documents=np.concatenate([drawn.documents, np.array(documents, np.int64)])
    ), [*types, *["words shuffled"] * len(shuffled)]


def shares_by_layer(ranked: Ranked, top: int) -> Shares:
    """The share [Q, L] of each layer in the summed influence of each query's most influential parts."""
    total_QN = np.where(ranked.counted, ranked.influence.sum(0, dtype=np.float64), -np.inf)
    best_QK = np.argsort(-total_QN, axis=1, kind="stable")[:, :top]
    by_layer = [np.take_along_axis(layer_QN, best_QK, 1).sum(1, dtype=np.float64) for layer_QN in ranked.influence]
    summed_QL = np.stack(by_layer, 1)
    shares_QL: Shares = summed_QL / summed_QL.sum(1, keepdims=True)
    return shares_QL


def _grouped(shares_QL: Shares, names: list[str]) -> tuple[list[str], Shares]:
    groups = list(dict.fromkeys(names))
    return groups, np.stack([shares_QL[:, [n == group for n in names]].sum(1) for group in groups], 1)


def _report(material: Material, config: LayersConfig, ranked: Ranked, types: list[str], given: bool) -> Report:
    layers = material.index.manifest.layers
    shares_QL = shares_by_layer(ranked, config.top)
    groups, by_group = _grouped(shares_QL, [layer.group for layer in layers])
    kinds, by_kind = _grouped(shares_QL, [layer.name.rpartition(".")[2] for layer in layers])
    order = [*dict.fromkeys(sorted(types, key=_place))] if not given else [*dict.fromkeys(types)]
    rows = {name: np.array([t == name for t in types]) for name in order}
    weights = np.array([layer.inputs * layer.outputs for layer in layers], np.float64)
    _, of_weights = _grouped((weights / weights.sum())[None], [layer.group for layer in layers])
    group_means = {
        n: [mean_interval(by_group[own, s], config.seed) for s in range(len(groups))] for n, own in rows.items()
    }
    kind_means = {
        n: [mean_interval(by_kind[own, s], config.seed) for s in range(len(kinds))] for n, own in rows.items()
    }
    _, of_kinds = _grouped((weights / weights.sum())[None], [layer.name.rpartition(".")[2] for layer in layers])
    overall = [mean_interval(column, config.seed) for column in by_group.T]
    most, least = (int(pick([interval.mean for interval in overall])) for pick in (np.argmax, np.argmin))
    tops = {
        name: max(zip(means, groups, strict=True), key=lambda pair: pair[0].mean) for name, means in group_means.items()
    }
    findings = (
        f"Of the influence of a query's top {config.top} parts the most sits in {groups[most]}, "
        f"{spread(overall[most], '.0%')} with {of_weights[0, most]:.0%} of the tracked weights, and the least in "
        f"{groups[least]}, {spread(overall[least], '.0%')} with {of_weights[0, least]:.0%}.",
        "By type the most sits in: "
        + "; ".join(f"{name}, {group} ({spread(mean, '.0%')})" for name, (mean, group) in tops.items())
        + ".",
    )
    return Report(
        name="layers",
        title="Where in the model does the influence sit?",
        findings=findings,
        sections=(
            _by_group(groups, group_means, of_weights[0], {name: int(own.sum()) for name, own in rows.items()}),
            _by_kind(kinds, kind_means, of_kinds[0]),
        ),
        caveats=CAVEATS,
        sources=(material.source,),
        settings=asdict(config) | {"queries": "given" if given else "drawn from the index"},
        numbers={
            "queries": {name: int(own.sum()) for name, own in rows.items()},
            "parts": len(ranked.parts),
            "groups": {n: dict(zip(groups, map(asdict, means), strict=True)) for n, means in group_means.items()},
            "kinds": {n: dict(zip(kinds, map(asdict, means), strict=True)) for n, means in kind_means.items()},
            "weights": dict(zip(groups, of_weights[0].tolist(), strict=True)),
            "kind_weights": dict(zip(kinds, of_kinds[0].tolist(), strict=True)),
        },
    )


def _place(name: str) -> int:
    return ("well predicted", "middling", "badly predicted", "words shuffled").index(name)


def _short(groups: list[str]) -> list[str]:
    """The names without their common beginning, where that leaves something of each."""
    starts = [group.rpartition(".") for group in groups]
    return [last for _, _, last in starts] if len({first for first, _, _ in starts}) == 1 else groups


def _by_group(groups: list[str], means: dict[str, list[Any]], of_weights: Shares, counts: dict[str, int]) -> Section:
    def fill(axes: Any) -> None:
        for colour, marker, (name, found) in zip(SERIES * 9, "osD^" * 9, means.items(), strict=False):
            x = np.arange(len(groups))
            axes.plot(x, [mean.mean for mean in found], color=colour, marker=marker, markersize=4, label=name)
            axes.fill_between(x, [m.low for m in found], [m.high for m in found], color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel="layer group, from input to output", ylabel="share of influence")
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), None)
        step = max(1, len(groups) // 12)
        axes.set_xticks(range(0, len(groups), step), _short(groups)[::step])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="best")

    rows = tuple(
        (group, *(spread(found[n], ".0%") for found in means.values()), f"{of_weights[n]:.0%}")
        for n, group in enumerate(groups)
    )
    header = tuple(f"{name} ({counts[name]})" for name in means)
    return Section(
        title="Along the depth",
        figures=(
            Figure(
                label="Share of influence by layer group and type of query",
                fill=fill,
                caption="Share of each group in the influence of a query's top parts; bands are 95% intervals.",
            ),
        ),
        tables=(
            Table(
                header=("group", *header, "weights"),
                rows=rows,
                caption="Mean share with its 95% interval by bootstrap over the queries, whose number is in brackets.",
            ),
        ),
    )


def _by_kind(kinds: list[str], means: dict[str, list[Any]], of_weights: Shares) -> Section:
    values = [*([mean.mean for mean in found] for found in means.values()), of_weights.tolist()]
    height = 1.2 + 0.32 * len(kinds)
    transposed = list(zip(*values, strict=True))
    names = [name.replace(" ", "\n", 1) for name in (*means, "all weights")]
    return Section(
        title="By kind of layer",
        figures=(
            Figure(
                label="Share of influence by kind of layer and type of query",
                fill=lambda axes: shade(axes, transposed, kinds, names, ".0%"),
                height=height,
                caption="Mean share of all layers of the kind, and their share of the weights; columns add up to 100%.",
            ),
        ),
    )
