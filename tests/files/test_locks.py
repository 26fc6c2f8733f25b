"""Locks: one holder alone or several together, free when the holder dies, nothing left behind."""

import errno
import fcntl
import math
import os
import re
import signal

import pytest

from gindex.errors import BusyError, StoreError
from gindex.files import locks
from gindex.files.locks import held


def test_alone(tmp_path):
    path = tmp_path / ".lock"
    with held(path):
        for shared in (False, True):
            with pytest.raises(BusyError, match=re.escape(str(tmp_path))), held(path, shared=shared):
                pass
    assert not path.exists()
    with held(path):
        assert path.exists()


def test_together(tmp_path):
    path = tmp_path / ".lock"
    with held(path, shared=True):
        with held(path, shared=True):
            pass
        assert path.exists()  # the other one still holds it
        with pytest.raises(BusyError), held(path):
            pass
    assert not path.exists()


def test_lock_of_a_dead_process_is_free(tmp_path):
    path, (reader, writer) = tmp_path / ".lock", os.pipe()
    pid = os.fork()
    if pid == 0:
        with held(path):
            os.write(writer, b"held")
            signal.pause()
    assert os.read(reader, 4) == b"held"
    with pytest.raises(BusyError), held(path):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert path.exists()
    with held(path):
        pass
    assert not path.exists()


def test_released_although_a_fork_still_runs(tmp_path):
    """The other process has a copy of the open file, which keeps the lock unless the holder lets go of it by name."""
    path, (reader, writer) = tmp_path / ".lock", os.pipe()
    with held(path):
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)  # until the other end is closed
            os._exit(0)
        waiting = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(waiting)
        os.close(writer)
        os.waitpid(pid, 0)


def test_waiting_for_a_file_that_is_removed_meanwhile(tmp_path):
    """Who waited finds the file gone, and must not share the lock with one who has made a new file."""
    path, (reader, writer) = tmp_path / ".lock", os.pipe()
    with held(path):
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"x")
            with held(path, wait=math.inf):
                os.write(writer, b"y" if path.exists() else b"n")
                os._exit(0)
        assert os.read(reader, 1) == b"x"
    assert os.read(reader, 1) == b"y"
    os.waitpid(pid, 0)


def test_file_system_without_locks(tmp_path, monkeypatch):
    def fail(*_args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", fail)
    with pytest.raises(StoreError, match="expected a file system with locks"), held(tmp_path / ".lock"):
        pass
