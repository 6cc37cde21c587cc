"""The run folder: where a run writes what it did; who is told what it is doing, and where its pieces run.

A run folder is never overwritten. It is new or empty, or it belongs to the same job and the user said `--resume`.
What a resumed run reads appears whole: written under a temporary name, then renamed.
"""

from __future__ import annotations

import json
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from regraft.errors import RegraftError, RunError, first_line

CONFIG = "config.toml"
LOG = "log.jsonl"
METRICS = "metrics.json"
EVIDENCE = "evidence.json"
P = TypeVar("P")  # a piece of work
R = TypeVar("R")  # what is made of it


class Listener(Protocol):
    """Who is told what a run does: a terminal, a log file, a test."""

    def say(self, text: str) -> None:
        """One sentence for a person."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Work of one kind goes on: `done` of `total` units."""


class Silent:
    """A listener that keeps quiet."""

    def say(self, text: str) -> None: ...

    def progress(self, what: str, done: int, total: int) -> None: ...


class Engine(Protocol):
    """Where pieces of work run that do not need each other.

    Args:
        width: how many run at a time.
    """

    width: int

    def map(self, work: Callable[[P], R], pieces: Sequence[P]) -> Iterable[R]:
        """What the work makes of each piece, in the order of the pieces."""
        ...


class Here:
    """One piece after the other, in this process."""

    width = 1

    def map(self, work: Callable[[P], R], pieces: Sequence[P]) -> Iterable[R]:
        """Each is made when it is asked for."""
        return map(work, pieces)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # a full disk leaves part of it


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file of a run holds.

    Raises:
        RunError: the file is damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise RunError(damaged(path, first_line(error))) from error
    if not isinstance(value, dict):
        raise RunError(damaged(path, "it holds no JSON object"))
    return value


def damaged(path: Path, reason: str) -> str:
    """What to say of a file that a run can do without: its work is done again."""
    return f"{path} is damaged ({reason}). Delete it and call again with --resume, which makes it anew: rm {path}"


def to_toml(values: Mapping[str, Any]) -> str:
    """A mapping as TOML, one key a line, and a table for each mapping in it; None has no spelling and is left out.

    Example:
        >>> print(to_toml({"best": {"lr": 0.1}, "seed": 0, "cut": None}), end="")
        seed = 0
        <BLANKLINE>
        [best]
        lr = 0.1
    """
    told = {key: value for key, value in values.items() if value is not None}
    tables = {key: value for key, value in told.items() if isinstance(value, Mapping)}
    lines = _lines({key: value for key, value in told.items() if key not in tables})
    return lines + "".join(f"\n[{key}]\n{_lines(table)}" for key, table in tables.items())


def _lines(values: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in values.items())


def toml_value(value: Any) -> str:
    """A string, number or boolean reads the same in TOML as in JSON; a mapping becomes an inline table, in order."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_value(key)} = {toml_value(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def make_folder(path: Path) -> None:
    """A folder with its parents; one that is there already is left as it is.

    Raises:
        RunError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise RunError(f"the folder {path} cannot be made ({why}). Choose another one: --out NEW_FOLDER") from error


def bytes_below(folder: Path) -> int:
    """What the files of a folder and of those in it take; what another process removes meanwhile takes nothing."""
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                total += bytes_below(Path(entry))
            else:
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
    return total


class RunFolder:
    """An open run folder; also the listener that writes `log.jsonl`.

    Args:
        path: the folder.
        audience: who else hears what the run says.
        is_new: whether nothing was there before.
    """

    def __init__(self, path: Path, audience: Listener | None = None, *, is_new: bool = False) -> None:
        self.path = path
        self._is_new = is_new
        self._audience = audience or Silent()
        self._start = time.monotonic()

    @classmethod
    def open(
        cls, path: Path, config: Mapping[str, Any], *, resume: bool, audience: Listener | None = None
    ) -> RunFolder:
        """Make or reopen a run folder.

        Args:
            path: where; made with its parents if absent.
            config: what the run is to do, as plain values; a resumed run must have been started with the same.
            resume: continue what is there.
            audience: who else hears what the run says.

        Raises:
            RunError: the folder holds something else, or another job.
        """
        settled = {key: value for key, value in config.items() if value is not None}
        if path.is_dir() and any(path.iterdir()):
            _check_same_job(path, settled, resume=resume)
            return cls(path, audience)
        make_folder(path)
        write_atomic(path / CONFIG, to_toml(settled))
        return cls(path, audience, is_new=True)

    @contextmanager
    def withdrawn_if_refused(self, *choices: str) -> Iterator[None]:
        """A mistake that is found before anything came of the run leaves no folder in the way of the mended call.

        Args:
            choices: files that hold no work, beside the settings and the log.
        """
        try:
            yield
        except RegraftError:
            held = list(self.path.iterdir())
            if self._is_new and {path.name for path in held} <= {CONFIG, LOG, *choices}:
                for path in held:
                    path.unlink()
                with suppress(OSError):  # someone stands in it
                    self.path.rmdir()
            raise

    def say(self, text: str) -> None:
        """Log one sentence and pass it on."""
        self._log({"event": "say", "text": text})
        self._audience.say(text)

    def progress(self, what: str, done: int, total: int) -> None:
        """Pass progress on; only its end is logged."""
        if done >= total:
            self._log({"event": "progress", "what": what, "done": done, "total": total})
        self._audience.progress(what, done, total)

    def write_json(self, name: str, value: Any) -> None:
        """Write one result file; what is not known is None in it, since JSON has no NaN."""
        write_atomic(self.path / name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """Read one result file.

        Raises:
            RunError: it is damaged.
        """
        return read_object(self.path / name)

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end: metrics are written with the model, evidence last."""
        return all((self.path / name).is_file() for name in (METRICS, EVIDENCE))

    def _log(self, event: dict[str, Any]) -> None:
        line = {"seconds": round(time.monotonic() - self._start, 3), **event}
        with (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _check_same_job(path: Path, config: dict[str, Any], *, resume: bool) -> None:
    if not resume:
        hint = "--resume continues it; " if (path / CONFIG).is_file() else ""
        raise RunError(f"{path} is not empty, and a run never overwrites. {hint}--out NEW_FOLDER starts another.")
    if not (path / CONFIG).is_file():
        raise RunError(f"{path} is not a run folder (it has no {CONFIG}). Start a new run: --out NEW_FOLDER.")
    before, plain = _flat(_read_config(path / CONFIG)), _flat(json.loads(json.dumps(config)))
    changed = [key for key in sorted(before.keys() | plain.keys()) if before.get(key) != plain.get(key)]
    if changed:
        what = "; ".join(f"{key} was {before.get(key)!r}, now {plain.get(key)!r}" for key in changed)
        raise RunError(f"{path} was started with other settings: {what}. Use the same, or --out NEW_FOLDER.")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no UTF-8
        told = f"{path} is damaged ({first_line(error)}), so nobody can tell what was begun there"
        raise RunError(f"{told}. Start a new run: --out NEW_FOLDER") from error


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Tables as "table.key"."""
    tables = {key: value for key, value in config.items() if isinstance(value, dict)}
    inner = {f"{key}.{name}": value for key, table in tables.items() for name, value in table.items()}
    return {key: value for key, value in config.items() if key not in tables} | inner


def peak_rss_mb() -> float:
    """The most memory this process has held so far, in MiB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
