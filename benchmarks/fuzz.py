"""Damaged model files, a hundred for each reader: each is opened with time and memory measured; no code may run.

Each reader has a process of its own (`--reader NAME FIRST LAST`), which says what came of each file as it goes; where a
file stops it for good, the process is ended and another goes on with the next file. What came of every file is kept as
a line of JSON, so that a run can be stopped and taken up again. A file counts as a network if it opens and gives an
answer to a batch of zeros.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import torch
from common import HERE, store

from regraft.errors import RegraftError
from regraft.search import traced_source
from regraft.source import Source, example_inputs

sys.path.insert(0, str(HERE.parent / "tests"))

from readers import MARK, READERS

_SLOW_S, _PATIENCE_S = 10.0, 45.0
_LARGE_MIB = 2048
_MOST_BYTES = 6 << 30  # of addresses, beyond what the process has when it begins
_OUTCOMES = ("message", "opened", "traceback", "hang", "memory", "code")
_CODE = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "socket.connect")


def main() -> None:
    arguments = _arguments()
    if arguments.reader:
        return _open_all(arguments.reader[0], *map(int, arguments.reader[1:]))
    each = -(-arguments.files // len(READERS))
    for reader in READERS:
        for line in _cases(reader, each, arguments.log):
            with arguments.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
    _tell(_logged(arguments.log))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100 * len(READERS))
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "regraft-fuzz.jsonl")
    parser.add_argument("--reader", nargs=3, metavar=("NAME", "FIRST", "LAST"))
    return parser.parse_args()


# the process that watches ------------------------------------------------------------------------------


def _logged(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []


def _cases(reader: str, n: int, log: Path) -> Iterator[dict[str, Any]]:
    """What came of a reader's files; a slow one gets a second chance, as the machine may have been busy."""
    known = {line["number"] for line in _logged(log) if line["reader"] == reader}
    left = [number for number in range(n) if number not in known]
    while left:
        for line in _watched(reader, left[0], n):
            if line["seconds"] > _SLOW_S:
                again = next(_watched(reader, line["number"], line["number"] + 1), line)
                line = min(line, again, key=lambda found: found["seconds"])
            print(reader, line["number"], line["outcome"], line["seconds"], line["said"][:100], flush=True)
            left.remove(line["number"])
            yield line


def _watched(reader: str, first: int, last: int) -> Iterator[dict[str, Any]]:
    """The lines of one process; it is ended, with a line about that, where one file takes too long."""
    command = [sys.executable, __file__, "--reader", reader, str(first), str(last)]
    with tempfile.TemporaryDirectory() as folder:
        own = {**os.environ, "TORCH_HOME": f"{folder}/torch"}  # what is unpacked goes with the process
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        process = subprocess.Popen(command, cwd=folder, env=own, **pipes)
        lines: Queue[str | None] = Queue()
        Thread(target=_pump, args=(process, lines), daemon=True).start()
        number = first
        while True:
            try:
                line = lines.get(timeout=_PATIENCE_S)
            except Empty:
                process.kill()
                yield _line(reader, number, "hang", _PATIENCE_S, 0, "ended from outside")
                break
            if line is None:
                if number < last:  # a crash of a library: as bad as a traceback
                    yield _line(reader, number, "traceback", 0.0, 0, f"the process ended with {process.wait()}")
                break
            found = json.loads(line)
            if found is not None:
                number = found["number"] + 1
                yield found
        process.kill()
        process.wait()


def _pump(process: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(("{", "null")):
            lines.put(line)
    lines.put(None)


def _line(reader: str, number: int, outcome: str, seconds: float, mib: int, said: str) -> dict[str, Any]:
    return {"reader": reader, "number": number, "outcome": outcome, "seconds": seconds, "mib": mib, "said": said}


def _tell(lines: list[dict[str, Any]]) -> None:
    by_reader: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        by_reader[line["reader"]].append(line)
    rows = [_row(reader, found) for reader, found in by_reader.items()]
    header = ["reader", "files", "one message", "opened all the same", "traceback or crash", "over 10 s", "over 2 GiB"]
    rows.append(_row("all", lines))
    note = "Memory is that of the whole process, PyTorch included; a slow file was tried twice."
    store("fuzz", [*header, "code run", "slowest, s", "largest, MiB"], rows, note)


def _row(name: str, lines: list[dict[str, Any]]) -> list[Any]:
    counts = Counter(line["outcome"] for line in lines)
    slowest, largest = (max(line[what] for line in lines) for what in ("seconds", "mib"))
    return [name, len(lines), *(counts[outcome] for outcome in _OUTCOMES), f"{slowest:.1f}", largest]


# the process that opens --------------------------------------------------------------------------------


def _open_all(reader: str, first: int, last: int) -> None:
    ran: list[str] = []
    sample = READERS[reader]()
    with tempfile.TemporaryDirectory() as folder:
        sample.open(sample.files, Path(folder))  # what is imported on first use is not the file's doing
    sys.addaudithook(lambda event, args: ran.append(event) if _is_code(event, args) else None)
    _limit_addresses()
    print("null", flush=True)
    for number in range(first, last):
        del ran[:]
        print(json.dumps(_opened(reader, sample, number, ran)), flush=True)


def _is_code(event: str, args: tuple[Any, ...]) -> bool:
    """Whether a command is run; the reader of HDF5 files is a process of its own."""
    return event in _CODE or (event == "subprocess.Popen" and "hdf5.py" not in str(args[1]))


def _limit_addresses() -> None:
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + _MOST_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _opened(reader: str, sample: Any, number: int, ran: list[str]) -> dict[str, Any]:
    files = sample.case(reader, number)
    Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is forgotten
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome, said = _outcome(sample, files, Path(folder))
    seconds, mib = round(time.perf_counter() - began, 2), _largest_mib()
    if ran or Path(MARK).exists():
        outcome, said = "code", f"{ran}"
    elif outcome in ("message", "opened") and mib > _LARGE_MIB:
        outcome = "memory"
    elif outcome in ("message", "opened") and seconds > _SLOW_S:
        outcome = "hang"
    return _line(reader, number, outcome, seconds, mib, said)


def _outcome(sample: Any, files: dict[str, bytes], folder: Path) -> tuple[str, str]:
    try:
        _used(sample.open(files, folder))
        return "opened", ""
    except RegraftError as error:
        return ("message" if str(error) else "traceback"), str(error)
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"


def _used(source: Source) -> None:
    """A network whose input does not fit it says so where it is taken apart, before anything else is done with it."""
    try:
        with torch.no_grad():
            source.model(*example_inputs(source.input))
    except (RuntimeError, ValueError, TypeError):
        traced_source(source)


def _largest_mib() -> int:
    status = Path("/proc/self/status").read_text()
    own = int(status.split("VmHWM:")[1].split()[0]) // 1024
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)


if __name__ == "__main__":
    main()
