"""A layer under gindex's storage calls that counts them, and at one of them kills, fails, or loses what was not synced.

A storage call is an open for writing, fsync, rename, link, unlink, mkdir or rmdir of Python's `os`, a statement or
commit of SQLite, and a write of a whole file by safetensors or FAISS (counted before, half-way and after).
"""

import builtins
import errno
import io
import os
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
from safetensors import SafetensorError

KILL, LOSE, NO_SPACE, IO_ERROR = "kill", "lose", "enospc", "eio"
FAILING = ("write", "fsync", "rename")
"""Kinds of calls that can fail with an error; anything is a place to be killed at."""


@dataclass
class Fault:
    """What happens, and at which storage call; 0 never.

    Attributes:
        mode: One of the constants above.
        at: Number of the call, from 1; of the calls of the kinds in FAILING where the mode is an error.
        root: The index.
        survivors: Where the mode LOSE puts what would be on the disk after a power loss.
        calls: What was called so far.
    """

    mode: str = KILL
    at: int = 0
    root: Path = Path()
    survivors: Path = Path()
    calls: list[str] = field(default_factory=list)

    def call(self, kind: str, what: object) -> OSError | None:
        """Count a call; dies, or returns the error that it must fail with."""
        errors = self.mode in (NO_SPACE, IO_ERROR)
        if errors and kind not in FAILING:
            return None
        self.calls.append(f"{kind} {what}")
        if len(self.calls) != self.at:
            return None
        if errors:
            number = errno.ENOSPC if self.mode == NO_SPACE else errno.EIO
            return OSError(number, os.strerror(number), str(what))
        if self.mode == LOSE:
            durable.write(self.root, self.survivors)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    def check(self, kind: str, what: object) -> None:
        """Count a call and fail where it must."""
        error = self.call(kind, what)
        if error is not None:
            raise error


class Durable:
    """What a power loss would leave: contents as of each file's last fsync, names as of each directory's.

    A file whose name was synced but whose content wasn't comes out empty.
    """

    def __init__(self) -> None:
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.folders: set[int] = set()
        self._kept: list[int] = []

    def start(self, root: Path) -> None:
        """Take all that is there as durable."""
        self._sync(root.parent)
        for path in [root, *root.rglob("*")] if root.exists() else []:
            self._sync(path)

    def synced(self, descriptor: int) -> None:
        """Note that a file or directory was synced."""
        self._sync(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def keep(self, path: Any) -> None:
        """Hold a file that is about to be removed, so that no other one gets its number."""
        try:
            self._kept.append(os.open(path, os.O_RDONLY))
        except (OSError, TypeError):
            return

    def _sync(self, path: Path) -> None:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            self.folders.add(status.st_ino)
            self.names[status.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
            self.folders |= {entry.inode() for entry in os.scandir(path) if entry.is_dir()}
        else:
            self.contents[status.st_ino] = real_open(path, "rb").read()

    def write(self, root: Path, target: Path) -> None:
        """Write what is left of `root` as `target`."""
        number = self.names[root.parent.stat().st_ino].get(root.name)
        if number is not None:
            self._write(number, target)

    def _write(self, number: int, target: Path) -> None:
        if number not in self.folders:
            with real_open(target, "wb") as file:
                file.write(self.contents.get(number, b""))
            return
        real["mkdir"](target)
        for name, inner in self.names.get(number, {}).items():
            self._write(inner, target / name)


durable = Durable()
real_open = builtins.open
real = {
    name: getattr(os, name) for name in ("fsync", "replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir")
}


@contextmanager
def installed(fault: Fault) -> Iterator[Fault]:
    """Put the layer under all storage calls of this process."""
    from gindex.store import factors

    track = fault.mode == LOSE
    if track:
        durable.start(fault.root)
    kinds = {"fsync": "fsync", "replace": "rename", "rename": "rename", "link": "rename"}
    changes: list[Any] = [
        mock.patch.object(os, name, partial(_called, fault, kinds.get(name, name), function, track))
        for name, function in real.items()
    ]
    for module in (builtins, io):
        changes.append(mock.patch.object(module, "open", partial(_opened, fault)))
    changes.append(mock.patch.object(sqlite3, "connect", partial(_connected, fault, sqlite3.connect)))
    write_index, save_file = faiss.write_index, factors.save_file
    changes.append(mock.patch.object(faiss, "write_index", partial(_index_written, fault, write_index)))
    changes.append(mock.patch.object(factors, "save_file", partial(_factors_written, fault, save_file)))
    for change in changes:
        change.start()
    try:
        yield fault
    finally:
        for change in changes:
            change.stop()


def _called(fault: Fault, kind: str, function: Callable[..., Any], track: bool, *args: Any, **more: Any) -> Any:
    fault.check(kind, args[0])
    if track and kind in ("unlink", "remove", "rename"):
        durable.keep(args[-1] if kind == "rename" else args[0])
    result = function(*args, **more)
    if track and kind == "fsync":
        durable.synced(args[0])
    return result


def _opened(fault: Fault, file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
    if set(mode) & set("wax+") and str(file).startswith(str(fault.root)):
        fault.check("write", file)
    return real_open(file, mode, *args, **more)


def _connected(fault: Fault, connect: Callable[..., Any], *args: Any, **more: Any) -> Any:
    class Connection(sqlite3.Connection):
        """Counts what writes."""

        def execute(self, sql: str, *rest: Any) -> Any:
            if not sql.lstrip().upper().startswith(("SELECT", "BEGIN")):
                self._count(sql[:30])
            return super().execute(sql, *rest)

        def executemany(self, sql: str, *rest: Any) -> Any:
            self._count(sql[:30])
            return super().executemany(sql, *rest)

        def executescript(self, sql: str) -> Any:
            self._count("script")
            return super().executescript(sql)

        def _count(self, sql: str) -> None:
            error = fault.call("write", sql)
            if error is not None:
                raise sqlite3.OperationalError(f"disk I/O error: {error.strerror}")

    if str(fault.root) in str(args[0]):
        more.setdefault("factory", Connection)
    return connect(*args, **more)


def _index_written(fault: Fault, write: Callable[..., Any], index: Any, name: str) -> None:
    try:
        fault.check("write", name)
        write(index, name)
        _half(fault, name)
    except OSError as error:
        raise RuntimeError(str(error)) from error


def _factors_written(fault: Fault, save: Callable[..., Any], tensors: Any, name: Path, metadata: Any) -> None:
    try:
        fault.check("write", name)
        save(tensors, name, metadata)
        _half(fault, name)
    except OSError as error:
        raise SafetensorError(str(error)) from error


def _half(fault: Fault, name: Any) -> None:
    """Count a call at which only half of the file was written, and one after it."""
    content = real_open(name, "rb").read()
    with real_open(name, "wb") as file:
        file.write(content[: len(content) // 2])
    fault.check("write", name)
    with real_open(name, "wb") as file:
        file.write(content)
    fault.check("write", name)
