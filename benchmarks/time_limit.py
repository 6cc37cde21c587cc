"""Is `--time-limit` kept? The wall time of whole processes, from an empty cache, evidence and report included.

    python benchmarks/time_limit.py

A run may end sooner, where nothing more that it could try would fit; it must not end later than a tenth after its
limit.
"""

from __future__ import annotations

from pathlib import Path

from common import DATA, REGRAFT, scratch_folder, store, timed

IMAGENET = str(DATA / "weights" / "mobilenetv2_100_imagenet")
SIGNS = [str(DATA / "datasets" / "sign_digits"), "--source", IMAGENET, "--per-class"]
DIGITS = ["digits", "--per-class", "5"]
VIEWS = ["--set", "views=8", "--set", "average_views=8"]
RUNS = {
    "digits, 5 of each class, embedded source": (DIGITS, (15, 30)),
    "the same, recipe gradual": ([*DIGITS, "--recipe", "gradual"], (20,)),
    "the same, recipe finetune with eight views, averaged": ([*DIGITS, "--recipe", "finetune", *VIEWS], (20,)),
    "sign_digits, 10 of each class, MobileNetV2": ([*SIGNS, "10"], (30, 60, 120)),
    "sign_digits, 50 of each class, MobileNetV2": ([*SIGNS, "50"], (60, 120)),
}


def main() -> None:
    rows = []
    for name, (flags, limits) in RUNS.items():
        for limit in limits:
            with scratch_folder() as work:
                seconds, delivered = _run(flags, limit, work)
            rows.append([name, limit, f"{seconds:.1f}", f"{seconds / limit:.2f}", delivered])
            print(rows[-1], flush=True)
    worst = max(float(row[3]) for row in rows)
    header = ["run", "limit, s", "took, s", "of the limit", "delivered"]
    store("time_limit", header, rows, f"One run each. The longest took {worst:.2f} of its limit.")


def _run(flags: list[str], limit: int, work: Path) -> tuple[float, str]:
    command = [*REGRAFT, "fit", *flags, "--time-limit", f"{limit}s", "--json", "--out", str(work / "run")]
    done = timed(command, cache=work / "cache")
    return done.seconds, done.result["delivered"]


if __name__ == "__main__":
    main()
