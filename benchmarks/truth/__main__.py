"""`make bench-truth`: all parts, one after the other. Of parts that are named the figures are printed, and not kept."""

from __future__ import annotations

import sys
import time
from importlib import import_module

from benchmarks.fashion import FOLDER
from benchmarks.results import write_results

PARTS = ("zoo", "groups", "modes", "feedback", "cleaning", "doubts", "drift")


def main() -> None:
    """Measure, print and keep the figures of each part."""
    figures: dict[str, float] = {}
    about: dict[str, object] = {}
    for part in sys.argv[1:] or PARTS:
        began = time.perf_counter()
        mine, about[part] = import_module(f"benchmarks.truth.{part}").measure(FOLDER)
        figures |= mine
        print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
    if sys.argv[1:]:
        print(*(f"{name}: {value:.4g}" for name, value in figures.items()), sep="\n")
    else:
        write_results("truth", figures, about)


if __name__ == "__main__":
    main()
