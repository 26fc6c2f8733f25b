"""`gindex delete`, `compact`, `versions`, `rollback`, `prune`, `verify` and `repair`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import GindexCommand
from .options import json_option, option
from .progress import terminal_progress
from .render import counted, size

if TYPE_CHECKING:
    from gindex.store.layout import Layout

index_argument = click.argument("index", type=click.Path(path_type=Path))


@click.command(cls=GindexCommand)
@index_argument
@click.argument("document_ids", metavar="ID...", nargs=-1, required=True)
@json_option
def delete(index: Path, document_ids: tuple[str, ...], as_json: bool) -> None:
    """Delete documents by their ids.

    No search of INDEX returns them from then on; `gindex compact` frees their space.

    \b
    Example:
        gindex delete runs/corpus d17 d18
        gindex delete runs/corpus notes/draft --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.delete import delete_documents

    manifest = delete_documents(_layout(index), document_ids)
    count = manifest.operation.documents or 0
    record = {"version": manifest.version, "deleted": count}
    _print(record, as_json, f"{index}: {counted(count, 'document')} deleted, version {manifest.version}")


@click.command(cls=GindexCommand)
@index_argument
@json_option
def compact(index: Path, as_json: bool) -> None:
    """Rewrite an index without its deleted documents.

    Older versions stay until gindex prune. An index that an older gindex made gets words of all scripts.

    \b
    Example:
        gindex compact runs/corpus
        gindex compact runs/corpus --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.compact import compact as run

    manifest = run(_layout(index), terminal_progress())
    record = {"version": manifest.version, **manifest.documents}
    _print(record, as_json, f"{index}: {_corpus(manifest.documents)}, version {manifest.version}")


@click.command(cls=GindexCommand)
@index_argument
@json_option
def versions(index: Path, as_json: bool) -> None:
    """List the versions of an index, the oldest first.

    \b
    Example:
        gindex versions runs/corpus
        gindex versions runs/corpus --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.history import list_versions

    found = list_versions(_layout(index))
    _print({"versions": found}, as_json, "\n".join(_version_line(version) for version in found))


@click.command(cls=GindexCommand)
@index_argument
@click.argument("version", type=click.IntRange(min=1))
@json_option
def rollback(index: Path, version: int, as_json: bool) -> None:
    """Make an index what it was in an older version.

    This makes a new version too, so it can be undone as well.

    \b
    Example:
        gindex rollback runs/corpus 3
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.rollback import rollback as run

    manifest = run(_layout(index), version)
    record = {"version": manifest.version, "to": version}
    _print(record, as_json, f"{index}: as in version {version}, now version {manifest.version}")


@click.command(cls=GindexCommand)
@index_argument
@option("--keep", type=click.IntRange(min=1), default=1, show_default=True, help="Newest versions to keep.")
@json_option
def prune(index: Path, keep: int, as_json: bool) -> None:
    """Remove old versions of an index, and the files that only they need.

    What interrupted commands have left is removed as well: an interrupted add begins anew. Whoever has an old version
    open may miss its files.

    \b
    Example:
        gindex prune runs/corpus
        gindex prune runs/corpus --keep 3
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.history import prune as run

    removed = run(_layout(index), keep)
    freed = f"{counted(removed['files'], 'file')}, {size(removed['bytes'])}"
    _print(dict(removed), as_json, f"{index}: {counted(removed['versions'], 'version')} removed, {freed}")


@click.command(cls=GindexCommand)
@index_argument
@option("--deep", is_flag=True, help="Decode every vector and let SQLite and FAISS check what they hold.")
@option("--version", "number", type=click.IntRange(min=1), help="Version to check; the newest if not given.")
@json_option
@click.pass_context
def verify(ctx: click.Context, index: Path, deep: bool, number: int | None, as_json: bool) -> None:
    """Check an index: its manifest, the checksum of every file, and counts and ids across the files.

    Ends with exit code 1 and a list where something is wrong.

    \b
    Example:
        gindex verify runs/corpus
        gindex verify runs/corpus --deep --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.verify import verify as run

    report = run(_layout(index), number, deep=deep, progress=terminal_progress())
    problems = report["problems"]
    lines = [f"wrong: {problem}" for problem in problems]
    lines += [f"left over, harmless: {path} (gindex prune removes it)" for path in report["unnamed"]]
    verdict = counted(len(problems), "problem") if problems else f"whole, {size(report['checked_bytes'])} checked"
    _print(report, as_json, "\n".join([*lines, f"{index}: version {report['version']}, {verdict}"]))
    ctx.exit(1 if problems else 0)


@click.command(cls=GindexCommand)
@index_argument
@json_option
@click.pass_context
def repair(ctx: click.Context, index: Path, as_json: bool) -> None:
    """Build again what can be derived, and find the vectors that are lost.

    The gindex build that made INDEX then computes these again, and no others. Ends with exit code 1 where something is
    left that cannot be repaired.

    \b
    Example:
        gindex repair runs/corpus
        gindex repair runs/corpus --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    from gindex.change.repair import repair as run

    done = run(_layout(index), terminal_progress())
    lines = [f"built again: {path}" for path in done.rebuilt] + [f"cannot be repaired: {what}" for what in done.beyond]
    if done.lost:
        parts = counted(done.lost, "part")
        lines.append(f"lost: {parts}; run the gindex build that made the index to compute them again")
    record = {
        "version": done.manifest.version,
        "rebuilt": list(done.rebuilt),
        "lost_parts": done.lost,
        "beyond_repair": list(done.beyond),
    }
    _print(record, as_json, "\n".join([*lines, f"{index}: version {done.manifest.version}"]))
    ctx.exit(1 if done.beyond else 0)


def _layout(index: Path) -> "Layout":
    from gindex.store.layout import Layout

    return Layout(index)


def _print(record: dict[str, Any], as_json: bool, text: str) -> None:
    click.echo(json.dumps(record, indent=1) if as_json else text)


def _version_line(version: dict[str, Any]) -> str:
    if "problem" in version:
        return f"{version['version']:>5}  damaged: {version['problem']}"
    kind, *details = version["operation"].items()
    what = ", ".join([kind[1], *(_detail(name, value) for name, value in details if value)])
    counts = _corpus(version)
    if version["deleted_documents"]:
        counts += f" (and {version['deleted_documents']:,} deleted)"
    if version["lost_parts"]:
        counts += f", {counted(version['lost_parts'], 'part')} lost"
    return f"{version['version']:>5}  {version['created']}  {what:<40}  {counts}, {size(version['bytes'])}"


def _detail(name: str, value: Any) -> str:
    noun, *others = name.split("_")
    if name in ("to", "type", "norm_ratio"):
        return " ".join([noun, *others, str(value)])
    return " ".join([counted(value, noun.removesuffix("s")), *others])


def _corpus(record: dict[str, Any]) -> str:
    return f"{counted(record['documents'], 'document')}, {counted(record['parts'], 'part')}"
