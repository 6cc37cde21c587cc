"""What a process that is there for one command can afford, and a library must not do to its host's process."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, NoReturn

import click

# Names and numbers of glibc's malloc.h; https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_TRIM_THRESHOLD, _NEVER = -1, -1
_M_MMAP_THRESHOLD, _LARGEST = -3, 32 << 20


def prepare() -> None:
    """Faster from here on.

    Python's search for unreachable cycles goes through all modules again and again; begun after 10,000 new objects
    instead of 700 it takes a third as long.
    """
    gc.set_threshold(10_000)
    _keep_freed_memory()


def leave(status: int) -> NoReturn:
    """End at once, after what was registered for the end.

    Python would take all modules apart first: with PyTorch and what exports and converts networks that takes one to two
    seconds, for which a person would wait after the last line.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # whoever reads it may have left
            stream.flush()
    os._exit(status)


class Stopped(click.ClickException):
    """Ctrl-C; the message says how to go on."""

    exit_code = 130  # as of a shell's command that SIGINT ended

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"stopped; what was finished is kept. {self.message}", file=file, err=True)


@contextmanager
def resumable(flags: str) -> Iterator[None]:
    """Inside the block Ctrl-C tells which flags go on.

    Raises:
        Stopped: on Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise Stopped(f"The same command with {flags} goes on.") from error


def _keep_freed_memory() -> None:
    """Let glibc keep blocks of up to 32 MB that are freed, for the next batch.

    It gives memory back to the system whenever the end of the heap is free, and each batch of a training asks for the
    same memory again, page by page (`benchmarks/results/freed_memory.md`). Larger blocks are still given back: kept as
    well they would save some more time, for half as much memory again. Where the C library is another one nothing
    happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
