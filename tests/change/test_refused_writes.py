"""A disk that is read-only or full, a folder without permission: the reason, and the index as it was.

These are real: mounts and permissions of a process of its own, not a patched `open`.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import faiss
import pytest
import torch
from faults.scenarios import DONE, in_fork

from gindex.change.delete import delete_documents
from gindex.change.verify import verify
from gindex.store.layout import Layout

NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000
"""CLONE_NEWUSER and CLONE_NEWNS of unshare(2)."""

STORE = 8
"""Exit code."""

COMMANDS = ["add", "delete", "compact", "rollback", "prune", "repair", "reindex"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def changed(built, tmp_path_factory) -> Path:
    """An index of two versions with a deleted document, so that every command has something to do."""
    folder = shutil.copytree(built, tmp_path_factory.mktemp("changed") / "index")
    delete_documents(Layout(folder), ["d1"])
    return folder


@pytest.fixture
def folder(changed, tmp_path) -> Path:
    return shutil.copytree(changed, tmp_path / "index")


@pytest.fixture
def arguments(more) -> dict[str, list[object]]:
    """What follows the folder on each command line."""
    path = more({f"n{n}": "a race in the kernel" for n in range(30)})
    return {"add": [path, "--device", "cpu"], "delete": ["d2", "d3"], "rollback": [1], "reindex": ["--type", "flat"]}


@pytest.fixture
def apart(tmp_path) -> Callable[[int, Callable[[], None]], None]:
    """Run something in a fork with mounts or a user of its own; skips where the kernel does not let us."""
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    if in_fork(lambda: _check(unshare(NEW_USER | NEW_MOUNTS)), tmp_path / "log") != DONE:
        pytest.skip("no user namespaces here, so nothing can be mounted")

    def apart(spaces: int, work: Callable[[], None]) -> None:
        def inside() -> None:
            user, group = os.getuid(), os.getgid()
            _check(unshare(spaces))  # first, as it takes a process of one thread: what follows may start others
            torch.set_num_threads(1)  # a fork has none of the threads that OpenMP would wait for
            faiss.omp_set_num_threads(1)
            if spaces & NEW_MOUNTS:  # new files need an owner
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/uid_map").write_text(f"0 {user} 1")
                Path("/proc/self/gid_map").write_text(f"0 {group} 1")
            work()

        assert in_fork(inside, tmp_path / "log") == DONE, (tmp_path / "log").read_text()

    return apart


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "unshare")


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True, text=True)


def damage(folder: Path, name: str) -> None:
    """Give `repair` something to do."""
    if name == "repair":
        Layout(folder).faiss(1).write_bytes(b"lost")


@pytest.mark.parametrize("name", COMMANDS)
def test_read_only_file_system(apart, folder, run, arguments, name):
    damage(folder, name)
    before = files(folder)

    def work() -> None:
        mount("--bind", folder, folder)
        mount("-o", "remount,bind,ro", folder)
        result = run(name, folder, *arguments.get(name, []))
        assert result.exit_code == STORE and "Read-only file system" in result.stderr, result.output
        assert f"{folder}: expected to write the index" in result.stderr and "check permissions" in result.stderr
        if name != "repair":  # reading needs no writing
            assert run("search", folder, "the compiler", "--device", "cpu").exit_code == 0
            assert run("verify", folder).exit_code == 0

    apart(NEW_USER | NEW_MOUNTS, work)
    assert files(folder) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_permission_denied(apart, folder, run, arguments, name):
    """In a user namespace that maps no user, even root has the permissions of the files' owner, and no others."""
    damage(folder, name)
    before = files(folder)
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    try:

        def work() -> None:
            result = run(name, folder, *arguments.get(name, []))
            assert result.exit_code == STORE and "Permission denied" in result.stderr, result.output
            assert "check permissions, then run the same command again" in result.stderr

        apart(NEW_USER, work)
    finally:
        for path in paths:
            path.chmod(path.stat().st_mode | 0o200)
    assert files(folder) == before


@pytest.mark.parametrize("free", [0, 60_000])
@pytest.mark.parametrize("name", ["add", "delete", "compact", "rollback", "repair"])
def test_full_disk(apart, folder, run, arguments, name, free):
    """With no byte left, and with room for only a part of what the command writes; then with room for all of it."""
    damage(folder, name)

    def work() -> None:
        disk = folder.parent / "disk"
        disk.mkdir()
        mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", disk)
        place = shutil.copytree(folder, disk / "index")
        before = named(place)
        fill(disk / "filler", free)
        command = [name, place, *arguments.get(name, [])]
        result = run(*command)
        if result.exit_code:
            assert result.exit_code == STORE and "Traceback" not in result.output
            assert "No space left" in result.stderr or "disk is full" in result.stderr  # SQLite says the latter
            assert "check free space" in result.stderr
            assert named(place) == before
        else:
            assert free and name in ("delete", "rollback")  # they write no more than a manifest
        (disk / "filler").unlink()
        assert run(*command).exit_code == 0 or not result.exit_code
        assert verify(Layout(place), deep=True)["problems"] == []

    apart(NEW_USER | NEW_MOUNTS, work)


def named(folder: Path) -> dict[str, bytes]:
    """Return the files that versions name, and the versions."""
    return {name: content for name, content in files(folder).items() if name not in verify(Layout(folder))["unnamed"]}


def fill(path: Path, free: int) -> None:
    """Write until the disk is full but for `free` bytes."""
    status = os.statvfs(path.parent)
    blocks = status.f_bfree - free // status.f_bsize
    with path.open("wb") as file:
        file.write(b"\1" * (blocks * status.f_bsize))


def test_index_that_was_copied_or_moved(folder, run, arguments):
    """Nothing in an index says where it is."""
    copy = shutil.copytree(folder, folder.parent / "copy")
    moved = folder.rename(folder.parent / "moved")
    for place in (copy, moved):
        assert run("add", place, *arguments["add"]).exit_code == 0
        assert run("compact", place).exit_code == 0
        result = run("search", place, "the compiler", "--device", "cpu", "-k", "500")
        assert result.exit_code == 0 and "n0, part 0" in result.stdout and "d1, part" not in result.stdout
        assert run("verify", place, "--deep").exit_code == 0
