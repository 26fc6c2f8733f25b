"""What the process owes its terminal: Ctrl-C and outputs that fail end it with at most a line, never with a traceback.

Loaded before everything else, so it imports little. Where the commands run within another program, such as the tests,
nothing here is in force.
"""

import codecs
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False  # `typing` would take longer to load than all else here
if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from types import FrameType, TracebackType
    from typing import Any, TextIO

FAILED, INTERRUPTED, READER_GONE = 1, 130, 141
"""Exit codes: of an output that cannot be written, and those that a shell shows for SIGINT and SIGPIPE."""

INTERRUPTED_LINE = "gindex: interrupted; finished work is kept, run the same command again to go on"

_ASCII = "plain_ascii"
_SHOW_CURSOR = "\x1b[?25h"


class OutputError(Exception):
    """Standard output cannot be written.

    Attributes:
        errno: Why, as the system numbers it.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.errno = error.errno


class _Interrupts:
    """What Ctrl-C does: it raises KeyboardInterrupt once, where a command is at work, and else ends the process.

    Within an import it ends the process too: packages that are half imported turn the exception into others, print it,
    or lose it.
    """

    def __init__(self) -> None:
        self.at_work = False
        self.raised = False

    def __call__(self, _number: int, frame: "FrameType | None") -> None:
        if not self.at_work or self.raised or _importing(frame):
            leave()
        self.raised = True
        raise KeyboardInterrupt


_interrupts = _Interrupts()


def guard() -> None:
    """Make Ctrl-C and the standard streams safe."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell's background jobs have it
        signal.signal(signal.SIGINT, _interrupts)
        sys.excepthook = _on_exception
        sys.unraisablehook = _on_unraisable
    _fill_descriptors()
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 it lasts as long as the process
    sys.stdout = _stream(sys.stdout, _Output(1, "w", closefd=False))
    sys.stderr = _stream(sys.stderr, _Messages(2, "w", closefd=False))


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt within the block, out of which it comes even if something in it was caught."""
    _interrupts.at_work = True
    try:
        yield
        if _interrupts.raised:
            raise KeyboardInterrupt
    finally:
        _interrupts.at_work = False


def was_interrupted() -> bool:
    """Whether KeyboardInterrupt was raised, whatever became of it."""
    return _interrupts.raised


@contextmanager
def reported() -> Iterator[None]:
    """End the process with a line where standard output fails, and silently where its reader has gone."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputError as error:
        if error.errno == errno.EPIPE:
            sys.exit(READER_GONE)
        sys.stderr.write(f"gindex: standard output: expected to write the result there, found: {error}\n")
        sys.exit(FAILED)
    except BaseExceptionGroup as group:  # of tasks, one of which has an output of its own, as for assistants
        if group.split((OutputError, BrokenPipeError))[1] is None:
            sys.exit(READER_GONE)
        raise
    finally:
        if was_interrupted():  # a thread that waits, as for a line of input, would keep the process
            sys.stderr.flush()
            os._exit(INTERRUPTED)


def leave() -> None:
    """End the process at once, as after a kill, which every command is made for."""
    cursor = _SHOW_CURSOR if os.isatty(2) else ""  # a bar may have hidden it
    with suppress(OSError):
        os.write(2, f"{cursor}{INTERRUPTED_LINE}\n".encode())
    os._exit(INTERRUPTED)


def _importing(frame: "FrameType | None") -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _on_exception(kind: type[BaseException], error: BaseException, trace: "TracebackType | None") -> None:
    if issubclass(kind, KeyboardInterrupt):
        leave()
    sys.__excepthook__(kind, error, trace)


def _on_unraisable(found: "UnraisableHookArgs") -> None:
    """An interrupt in a destructor or a callback would be printed and lost."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        leave()
    sys.__unraisablehook__(found)


def _fill_descriptors() -> None:
    """Open what is closed of the three standard streams: else the next file that is opened takes its number.

    Writing to standard output fails as before; nothing more can be said on standard error.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)  # takes the lowest number that is free


class _Output(io.FileIO):
    """Standard output; the first failure is raised, and what is left after that is dropped."""

    _failed = False

    def write(self, data: "Any") -> int:
        size = memoryview(data).nbytes
        if self._failed:
            return size
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block, and is full
                select.select([], [self], [])
        except OSError as error:
            self._failed = True
            raise OutputError(error) from error
        return written


class _Messages(io.FileIO):
    """Standard error; where it fails there is nobody to tell."""

    def write(self, data: "Any") -> int:
        with suppress(OSError):
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        return memoryview(data).nbytes


def _stream(old: "TextIO | None", raw: io.FileIO) -> "TextIO":
    """Stream of text in the encoding of `old`, which escapes what the encoding lacks."""
    encoding = old.encoding if old is not None else "utf-8"
    if codecs.lookup(encoding).name == "ascii":
        codecs.register(_ascii)
        encoding = _ASCII
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty() or raw.fileno() == 2,
        write_through=getattr(old, "write_through", False),
    )


def _ascii(name: str) -> codecs.CodecInfo | None:
    """Find ASCII by another name: click takes a stream of that encoding for a mistake, and would write UTF-8 to it."""
    if name != _ASCII:
        return None
    found = codecs.lookup("ascii")
    return codecs.CodecInfo(
        found.encode,
        found.decode,
        streamreader=found.streamreader,
        streamwriter=found.streamwriter,
        incrementalencoder=found.incrementalencoder,
        incrementaldecoder=found.incrementaldecoder,
        name=_ASCII,
    )
