"""How time and memory of a training step grow with turns and seconds, beside the paper's padding to 30 s.

Sizes are those of es4r-base, one dialogue a batch, float32. Each point runs in a process of its own, whose peak memory
is its own too. Writes a JSON file and a plot.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from timing import measure, peak_rss_mb
from workload import RATE, Sizes, batch_of, build_pipeline, synthetic_speech, train_step

TURNS, SECONDS = (1, 2, 4, 8, 16, 32), (1, 2, 5, 10, 20, 30)
STANDARD_TURNS, STANDARD_SECONDS = 4, 5
STYLES = {"masked": "as long as it is (ours)", "padded": "padded to the 30 s window, as the paper's code does"}


def main() -> int:
    """Measure every point, write JSON and plot; returns the exit status."""
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    points = [("turns", turns, turns, STANDARD_SECONDS, style) for turns in TURNS for style in STYLES]
    points += [("seconds", seconds, STANDARD_TURNS, seconds, style) for seconds in SECONDS for style in STYLES]
    rows = []
    for axis, value, turns, seconds, style in tqdm(points, desc="measuring", unit="point"):
        # A fresh interpreter a point: memory that one has held is not given back.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(point, (turns, seconds, style == "padded", options.threads, options.repeats))
        rows.append({"axis": axis, "value": value, "style": style, **found})
    result = {"threads": options.threads, "torch": torch.__version__, "points": rows}
    (options.output / "scaling.json").write_text(json.dumps(result, indent=2) + "\n")
    plot(rows, options.output / "scaling.png")
    print(options.output / "scaling.png")
    return 0


def point(turns: int, seconds: float, padded: bool, threads: int, repeats: int) -> dict[str, float]:
    """Seconds (median) and peak memory of a training step on one dialogue."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = build_pipeline(Path(folder), Sizes(), full_window=padded).train()
    batch = batch_of([[synthetic_speech(round(seconds * RATE), seed) for seed in range(turns)]])
    spent = measure(lambda: train_step(pipeline, batch), repeats)
    return {"train_step_s": round(statistics.median(spent), 4), "peak_rss_mb": peak_rss_mb()}


def plot(rows: Sequence[dict], path: Path) -> None:
    """Time above, memory below; turns on the left, seconds on the right."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), sharex="col", constrained_layout=True)
    titles = {
        "turns": f"turns of {STANDARD_SECONDS} s",
        "seconds": f"seconds a turn, {STANDARD_TURNS} turns",
    }
    names = {"train_step_s": "training step (s)", "peak_rss_mb": "peak memory of the process (MB)"}
    for column, (axis, title) in enumerate(titles.items()):
        for line, (key, name) in enumerate(names.items()):
            area = axes[line][column]
            for style, label in STYLES.items():
                chosen = [row for row in rows if row["axis"] == axis and row["style"] == style]
                area.plot([row["value"] for row in chosen], [row[key] for row in chosen], marker="o", label=label)
            area.set(ylabel=name, ylim=(0, None))
            area.grid(alpha=0.3)
        axes[1][column].set(xlabel=title)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python benchmarks/scaling.py --threads 1")
    parser.add_argument("--output", type=Path, default=Path("results/scaling"), help="folder for JSON and plot")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps a point (default: 5)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
