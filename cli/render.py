"""How figures and hits are shown to a person."""

import json
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from .query_text import query_text
from .wording import error_text, in_options

if TYPE_CHECKING:
    from gindex.exact.certificate import Certificate
    from gindex.exact.refinement import Refinement
    from gindex.queries.query import FailedQuery, Query
    from gindex.search.groups import Group, Groups
    from gindex.search.result import Hit, SearchResult

SHOWN_CHARACTERS = 300
SHOWN_LAYERS = 5
SHOWN_VALUE = 40

UNLIKELY = 0.05
"""A probability that none of the true best is missing below which it is not given as a number."""


def json_text(value: Any, **layout: Any) -> str:
    """Write JSON, laid out as `json.dumps` does: in Unicode where the output takes all of it, else escaped."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    return json.dumps(value, ensure_ascii=not unicode, **layout)


def size(count: float) -> str:
    """Write a number of bytes: 1,234,567 is `1.2 MB`."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def counted(count: int, noun: str) -> str:
    """Write how many there are of something: `1 document`, `2,000 documents`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Write a time: 75 seconds is `1 min 15 s`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def result_text(result: "SearchResult") -> str:
    """Write the answer to one query."""
    lines = [query_title(result.query), *notes_text(result.notes)]
    lines += _hits_text(result.hits)
    if result.negative_hits is not None:
        lines += ["", "most negative", *_hits_text(result.negative_hits)]
    if result.certificate is not None:
        lines += ["", certificate_text(result.certificate)]
    if result.refinement is not None:
        lines += ["", refinement_text(result.refinement)]
    if result.groups is not None:
        lines += ["", *groups_lines(result.groups)]
    return "\n".join(lines)


def timing_text(results: "Sequence[SearchResult]") -> str:
    """Write the time that queries took, which were answered together."""
    took, reranked = results[-1].timing_ms, [result.reranked for result in results if result.reranked is not None]
    of = f"{counted(len(results), 'query') if len(results) == 1 else f'{len(results):,} queries'} together: "
    rerank = f", re-rank of {counted(sum(reranked), 'part')} {took.rerank:.0f} ms" if reranked else ""
    return f"{of if len(results) > 1 else ''}gradient {took.gradient:.0f} ms, search {took.search:.1f} ms{rerank}"


def certificate_text(certificate: "Certificate") -> str:
    """Write how likely it is that none of the true best was missed, and what would make it likelier."""
    if not certificate.outside:
        return "certain: the influence of every part that may be found was recomputed"
    left = f"{counted(certificate.outside, 'part')} not recomputed"
    if certificate.candidates is None:
        return f"none of the true best is missing, with probability {certificate.probability:.3f} ({left})"
    if certificate.probability < UNLIKELY:
        advice = f"about --candidates {certificate.candidates} would make the probability of none .95"
        return f"uncertain: some of the true best may well be missing ({left}); {advice}"
    advice = f"about --candidates {certificate.candidates} would make it .95"
    return f"none of the true best is missing, with probability {certificate.probability:.2f} only ({left}); {advice}"


def failure_text(failed: "FailedQuery") -> str:
    """Write that a query has no answer, and why."""
    return f"{query_title(failed.query)}\n\nno answer: {error_text(failed.error)}"


def query_title(query: "Query") -> str:
    """Write a query in one line, or as many as its text has."""
    text = query_text(query, str, lambda said: click.style(said, bold=True))
    return f"{f'[{query.id}] ' if query.id else ''}{text}"


def notes_text(notes: "Sequence[str]") -> list[str]:
    """Write what is to be told of a query, a line each."""
    return [f"note: {note}" for note in notes]


def refinement_text(found: "Refinement") -> str:
    """Write how a query was refined."""
    end = "" if found.converged else ", not converged: the best iterate is used"
    return (
        f"refined by {found.method} over {counted(found.parts, 'part')}: {counted(found.iterations, 'iteration')}, "
        f"residual {found.residual:.3g}{end}, {found.seconds:.1f} s"
    )


def groups_lines(groups: "Groups") -> list[str]:
    """Write the scores of all documents by the value of a field, as a table."""
    head = (groups.field, "documents", "sum of scores", "95% interval", "mean", "95% interval")
    rows = [head, *(_group_cells(group) for group in groups.groups)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [f"scores of {counted(groups.documents, 'document')} by {groups.field}"]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append(f"     {'  '.join(cells)}".rstrip())
    others = groups.others
    if others is not None:
        rest = f"{counted(others.values, 'other value')}: {counted(others.documents, 'document')}"
        lines.append(f"     {rest}, sum of scores {others.sum:+.4g}")
    return lines


def _group_cells(group: "Group") -> tuple[str, ...]:
    name = "(none)" if group.value is None else " ".join(str(group.value).split())
    shown = name if len(name) <= SHOWN_VALUE else f"{name[: SHOWN_VALUE - 3]}..."
    intervals = [
        "-" if bounds is None else f"{bounds[0]:+.4g} to {bounds[1]:+.4g}"
        for bounds in (group.sum_interval, group.mean_interval)
    ]
    return shown, f"{group.documents:,}", f"{group.sum:+.4g}", intervals[0], f"{group.mean:+.4g}", intervals[1]


def _hits_text(hits: "Sequence[Hit]") -> list[str]:
    if not hits:
        return ["", "no hits"]
    lines = []
    for hit in hits:
        lines += ["", _hit_title(hit), excerpt(hit.text)]
        if hit.layers:
            top = sorted(hit.layers.items(), key=lambda entry: -abs(entry[1]))[:SHOWN_LAYERS]
            lines.append(f"     {', '.join(f'{name} {score:+.3g}' for name, score in top)}")
    return lines


def fidelity_text(record: dict[str, Any] | None) -> str:
    """Write what a build measured of its own index in one line."""
    if record is None:
        return "not measured"
    shown = [("top10_in_100", "top 10 within 100"), ("top10_in_50", "top 10 within 50"), ("recall@10", "recall@10")]
    measures = record["measures"]
    named = [f"{text} {measures[name]['mean']:.2f}" for name, text in shown if name in measures][:2]
    correlation = f"Pearson {measures['pearson']['mean']:.2f}"
    return f"{', '.join([*named, correlation])} against exact ({record['queries']} queries, {record['parts']:,} parts)"


def untracked_lines(coverage: dict[str, Any]) -> list[str]:
    """Write what is not tracked, a line for each reason."""
    return [
        f"not tracked: {each['weights']}: {in_options(each['reason'])} ({counted(each['count'], 'weight')}, "
        f"{'outside the body' if each['share'] is None else format(each['share'], '.1%')})"
        for each in coverage["untracked"]
    ]


def coverage_text(coverage: dict[str, Any]) -> str:
    """Write how much of a model is tracked in a few words."""
    return f"{coverage['share']:.1%} of the model's {'body' if coverage['of'] == 'body' else 'weights'} tracked"


def _hit_title(hit: "Hit") -> str:
    facts = [f"{hit.rank:>3}", f"score {hit.score:+.4g}"]
    if hit.influence is not None:
        facts.append(f"influence {hit.influence:+.4g}")
    if hit.lexical is not None:
        facts.append(f"BM25 {hit.lexical:.3g}")
    of = "" if hit.parts is None else f" of {hit.parts}"
    facts.append(f"{click.style(hit.document_id, bold=True)}, part {hit.part}{of}")
    if hit.pictures:
        facts.append(counted(hit.pictures, "picture"))
    if hit.duplicates:
        facts.append(f"and {len(hit.duplicates)} like it")
    return "  ".join(facts)


def excerpt(text: str) -> str:
    """Write the beginning of a text, indented."""
    flat = " ".join(text.split())
    shown = flat if len(flat) <= SHOWN_CHARACTERS else flat[:SHOWN_CHARACTERS].rsplit(" ", 1)[0] + " ..."
    return textwrap.fill(shown, 100, initial_indent="     ", subsequent_indent="     ")


def transform_text(transform: dict[str, Any] | None) -> str:
    """Say what vectors are transformed by."""
    if transform is None:
        return "none"
    said = transform["settings"] | transform["measures"]
    return ", ".join([transform["kind"], *(f"{name} {value:g}" for name, value in said.items())])
