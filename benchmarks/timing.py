"""Seconds of repeated calls, and their median with its spread."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def measure(work: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


def summary(values: list[float]) -> dict[str, float | list[float]]:
    """Median, least and most."""
    return {
        "median": _short(statistics.median(values)),
        "spread": [_short(min(values)), _short(max(values))],
        "repeats": len(values),
    }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def rss_mb() -> int:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20)


def peak_rss_mb() -> int:
    """The most memory this process has held."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
