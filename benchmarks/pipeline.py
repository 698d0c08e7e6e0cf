"""Time the pipeline on the workload es4r-base, and print one JSON object.

Each figure is a median with its spread (least, most). Seconds of a quiet machine; compare by gemm_gflops.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from breakdown import memory_mb, time_by_kind
from timing import measure, peak_rss_mb, rss_mb, summary
from workload import Sizes, batch_of, build_pipeline, first_token, spoken_dialogues, train_step

# The frozen speech encoder is held in the precision that it is multiplied in.
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def main() -> int:
    """Run the benchmark; returns the exit status."""
    options = _options()
    imports = rss_mb()
    torch.set_num_threads(options.threads)
    dialogues, source = spoken_dialogues()
    batch = batch_of(dialogues)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = build_pipeline(Path(folder), Sizes(), dtype=DTYPES[options.precision])
    precision = _precision(options.precision)
    understanding, layout = pipeline.understanding, pipeline.generation.layout
    bar = tqdm(total=4, desc="timing", unit="figure", disable=not sys.stderr.isatty())

    def timed(work: Callable[[], object], repeats: int = options.repeats) -> list[float]:
        seconds = measure(work, repeats)
        bar.update()
        return seconds

    pipeline.train()
    with FlopCounterMode(display=False) as counter, precision():
        train_step(pipeline, batch)
    flops = counter.get_total_flops()
    gemm = [2 * 1024**3 / seconds / 1e9 for seconds in timed(_product(), 50)]
    step = timed(lambda: _under(precision, train_step, pipeline, batch))
    pipeline.eval()
    front = timed(lambda: understanding.features(batch.waveforms, batch.wav_lens), 4 * options.repeats)
    mels, counts = understanding.features(batch.waveforms, batch.wav_lens)

    def one_token() -> None:
        pipeline.eval().generation.layout = ("text", "fused")
        _under(precision, first_token, pipeline, mels, counts, batch)
        pipeline.generation.layout = layout

    first = timed(one_token)
    bar.close()
    gflops = statistics.median(gemm)
    result = {
        "workload": "es4r-base",
        "audio": source,
        "audio_s": round(
            sum(len(turn) for turns in dialogues for turn in turns) / understanding.encoder.sample_rate, 1
        ),
        "precision": options.precision,
        "threads": options.threads,
        "torch": torch.__version__,
        "front_end_s": summary(front),
        "train_step_s": summary(step),
        "first_token_s": summary(first),
        "peak_rss_mb": peak_rss_mb(),
        "gemm_gflops": summary(gemm),
        "train_step_gflop": round(flops / 1e9, 1),
        "train_step_utilization": summary([flops / 1e9 / seconds / gflops for seconds in step]),
    }
    if options.profile:
        pipeline.train()
        result["profile_ms"] = {
            "train_step": time_by_kind(lambda: _under(precision, train_step, pipeline, batch)),
            "first_token": time_by_kind(one_token),
        }
        kept = memory_mb(pipeline, lambda: _under(precision, train_step, pipeline, batch))
        result["memory_mb"] = {"imports": imports, **kept}
    print(json.dumps(result, indent=2))
    return 0


def _product() -> Callable[[], object]:
    left, right = torch.rand(2, 1024, 1024)
    return lambda: left @ right


def _precision(name: str) -> Callable[[], contextlib.AbstractContextManager]:
    if name == "fp32":
        return contextlib.nullcontext
    return lambda: torch.autocast("cpu", dtype=torch.bfloat16)


def _under(precision: Callable[[], contextlib.AbstractContextManager], work: Callable, *arguments: object) -> object:
    with precision():
        return work(*arguments)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog="example: python benchmarks/pipeline.py --threads 1")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16 runs under autocast")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="at least; short figures take more (default: 5)")
    parser.add_argument("--profile", action="store_true", help="also say where time and memory go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
