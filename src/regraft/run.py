"""The run folder: where a run writes what it did, and how it is told what it is doing.

A run folder is never overwritten. It is new or empty, or it belongs to the same job and the user said `--resume`.
Every file appears whole: written under a temporary name, then renamed.
"""

from __future__ import annotations

import json
import os
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from regraft.errors import RunError

CONFIG = "config.toml"
METRICS = "metrics.json"
EVIDENCE = "evidence.json"


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


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def to_toml(values: Mapping[str, Any]) -> str:
    """A flat mapping as TOML, one key a line; None has no spelling in TOML and is left out."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None)


class RunFolder:
    """An open run folder; also the listener that writes `log.jsonl`.

    Args:
        path: the folder.
        audience: who else hears what the run says.
    """

    def __init__(self, path: Path, audience: Listener | None = None) -> None:
        self.path = path
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
        elif path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file; a run needs a folder. Choose another one with --out.")
        else:
            path.mkdir(parents=True, exist_ok=True)
            write_atomic(path / CONFIG, to_toml(settled))
        return cls(path, audience)

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
        """Write one result file."""
        write_atomic(self.path / name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read_json(self, name: str) -> Any:
        """Read one result file."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end: metrics are written with the model, evidence last."""
        return all((self.path / name).is_file() for name in (METRICS, EVIDENCE))

    def _log(self, event: dict[str, Any]) -> None:
        line = {"seconds": round(time.monotonic() - self._start, 3), **event}
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _check_same_job(path: Path, config: dict[str, Any], *, resume: bool) -> None:
    if not resume:
        hint = "--resume continues it; " if (path / CONFIG).is_file() else ""
        raise RunError(f"{path} is not empty, and a run never overwrites. {hint}--out NEW_FOLDER starts another.")
    if not (path / CONFIG).is_file():
        raise RunError(f"{path} is not a run folder (it has no {CONFIG}). Start a new run: --out NEW_FOLDER.")
    before = tomllib.loads((path / CONFIG).read_text(encoding="utf-8"))
    plain = json.loads(json.dumps(config))
    changed = [key for key in sorted(before.keys() | plain.keys()) if before.get(key) != plain.get(key)]
    if changed:
        what = "; ".join(f"{key} was {before.get(key)!r}, now {plain.get(key)!r}" for key in changed)
        raise RunError(f"{path} was started with other settings: {what}. Use the same, or --out NEW_FOLDER.")


def peak_rss_mb() -> float:
    """The most memory this process has held so far, in MiB; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
