"""`gindex info`."""

import json
from pathlib import Path
from typing import Any

import click

from .command import GindexCommand
from .options import json_option
from .render import coverage_text, fidelity_text, size, transform_text, untracked_lines


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@json_option
def info(index: Path, as_json: bool) -> None:
    """Print what an index is made of.

    \b
    Example:
        gindex info runs/corpus
        gindex info runs/corpus --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.store.description import describe
    from gindex.store.layout import Layout
    from gindex.store.snapshot import Snapshot

    content = describe(Snapshot.open(Layout(index.absolute())))
    click.echo(json.dumps(content, indent=1) if as_json else _text(content))


def _text(content: dict[str, Any]) -> str:
    model, fit, ranks = content["model"], content["fit"], content["ranks"]
    share, coverage = model["tracked_parameters"] / model["parameters"], content["coverage"]
    search = content["search_index"]
    folded = content["dimension"] >> search["folds"]
    recall = search.get("recall")
    found = f", recall@10 {recall['at_10']:.3f}, recall@100 {recall['at_100']:.3f}" if recall else ""
    found += f" (of the first {recall['parts']:,} parts)" if recall and recall.get("parts") else ""
    files = f" in {search['files']:,} files" if search["files"] > 1 else ""
    disk = content["disk_bytes"]
    entries = {
        "index": f"{content['path']}, format {content['format_version']}, built {content['created']}",
        "corpus": f"{content['documents']:,} documents, {content['parts']:,} parts, {content['tokens']:,} tokens",
        "left out": f"{content['skipped_parts']:,} parts{''.join(f', {reason}' for reason in content['skipped'][:3])}",
        "model": f"{model['name']} ({content['task']}, {model['dtype']}, fingerprint {model['model'][:12]})",
        "layers": f"{content['tracked_layers']} in {content['layer_groups']} groups, {share:.1%} of the parameters, "
        f"{coverage_text(coverage)}",
        "vectors": f"{content['dimension']:,} x {content['bits']} bits, {content['bytes_per_part']:,} bytes a part",
        "projection": f"{content['projection']['kind']}, fingerprint {content['projection']['fingerprint'][:12]}",
        "ranks": f"activation {_range(ranks['activation'])}, gradient {_range(ranks['gradient'])}",
        "damping": f"{content['index_damping']:g} x mean for vectors, {content['damping_scale']:g} x mean for --exact",
        "curvature": content["curvature"],
        "transform": transform_text(content["transform"]),
        "fit": f"{fit['documents']:,} documents, {fit['tokens']:,} tokens",
        "by index": ", ".join(["id", *content["indexed_fields"]]),
        "search": f"FAISS {search['kind']}{files}, {folded:,} dimensions{found}",
        "fidelity": fidelity_text(content["fidelity"]),
        "disk": f"{size(sum(disk.values()))} ({', '.join(f'{name} {size(count)}' for name, count in disk.items())})",
    }
    lines = [f"{name:<11}{value}" for name, value in entries.items()]
    after = next(n for n, line in enumerate(lines, 1) if line.startswith("layers"))
    lines[after:after] = [f"{'':<11}{line}" for line in untracked_lines(coverage)]
    return "\n".join([*lines, f"warning    {coverage['warning']}"] if coverage["warning"] else lines)


def _range(spread: dict[str, int]) -> str:
    return f"{spread['least']} to {spread['most']}" if spread["least"] != spread["most"] else str(spread["least"])
