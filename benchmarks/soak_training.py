"""Kill training again and again, at random moments and at every step of a save, and compare what it ends with.

python benchmarks/soak_training.py --kills 20 --output results/soak
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))
from forked import Fault, comparable, differences, results, start
from tones import command_of, write_corpus

PATIENCE = 600.0
EPOCHS = 12  # of three batches, a checkpoint behind each
# Of float32 sums in another order, relative; for weights absolute.
CURVE, WEIGHTS = 1e-4, 1e-5


def main() -> None:
    """Run all three soaks, and write what was tried and lost."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--kills", type=int, default=20, help="random moments, of one process and of two")
    asked.add_argument("--seed", type=int, default=0, help="of those moments")
    asked.add_argument("--output", type=Path, default=Path("results/soak"))
    options = asked.parse_args()
    # Before the server starts, which all runs are forked from.
    os.environ["OMP_NUM_THREADS"] = "1"
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch, "corpus")
        corpus.mkdir()
        write_corpus(corpus)
        command = partial(command_of, corpus)
        rows = [
            kills_at_random_moments(Path(scratch), command, options.kills),
            kills_at_every_call_of_a_save(Path(scratch), command),
            kills_of_either_process(Path(scratch), command, options.kills),
        ]
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "training.json").write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        print(f"{row['tried']}: {row['times']} times, {len(row['lost'])} lost")
    sys.exit(any(row["lost"] for row in rows))


def kills_at_random_moments(scratch: Path, command: Callable[..., list[str]], times: int) -> dict:
    """A run with dropout that is killed wherever it is, and started again until it ends; then another."""
    whole, lost, moments, number = scratch / "whole", [], [], 0
    # The server has imported everything by the second run.
    run_to_the_end(command(scratch / "first", epochs=1), scratch / "first")
    began = time.monotonic()
    run_to_the_end(command(whole, epochs=EPOCHS), whole)
    seconds = time.monotonic() - began
    with tqdm(total=times, desc="random moments") as bar:
        while len(moments) < times:
            number += 1
            output = scratch / f"random{number}"
            while len(moments) < times:
                run = start(command(output, epochs=EPOCHS), output)
                time.sleep(random.uniform(0, seconds / 2))
                run.kill()
                if run.processes[0].exitcode == 0:
                    break
                log = output / "log.txt"
                moments.append(log.read_text().splitlines()[-1] if log.is_file() else "before its first line")
                bar.update()
            run_to_the_end(command(output, epochs=EPOCHS), output)
            lost += [f"run {number}: {name}" for name in differences(results(whole), results(output))]
    return {"tried": "kill -9 at a random moment", "times": len(moments), "lost": lost, "after": moments}


def kills_at_every_call_of_a_save(scratch: Path, command: Callable[..., list[str]]) -> dict:
    """A run that is killed before each call that changes the disk: in saves inside epochs, and at an epoch's end."""
    whole, lost, kills = scratch / "whole", [], 0
    # How many saves are whole by then, so that the next is at the end of an epoch of three batches.
    for kind, first in (("inside an epoch", 1), ("at its end", 4)):
        output = scratch / f"saves{first}"
        if first > 1:
            start(command(output, epochs=EPOCHS), output, Fault(save=first, call=1)).codes(PATIENCE)
        for call in tqdm(range(1, 1000), desc=f"calls of a save {kind}"):
            (code,) = start(command(output, epochs=EPOCHS), output, Fault(save=1, call=call)).codes(PATIENCE)
            if code != -signal.SIGKILL:
                break
            kills += 1
        lost += [f"{kind}: {name}" for name in differences(results(whole), results(output))]
    return {"tried": "kill -9 before each call of a checkpoint's save", "times": kills, "lost": lost}


def kills_of_either_process(scratch: Path, command: Callable[..., list[str]], times: int) -> dict:
    """Two processes, one of which is killed before some step or in a save; then two or one go on."""
    whole, lost = scratch / "one", []
    run_to_the_end(command(whole, batch_size=4), whole, prepare=comparable)
    for number in tqdm(range(times), desc="either process"):
        output = scratch / f"either{number}"
        process = random.randrange(2)
        # The first alone writes.
        in_save = process == 0 and random.random() < 0.5
        place = {"step": random.randint(1, 4)}
        if in_save:
            place = {"save": random.randint(1, 6), "call": random.randint(1, 40)}
        run = start(command(output), output, Fault(process=process, **place), processes=2, prepare=comparable)
        codes = run.codes(PATIENCE)
        if None in codes:
            lost.append(f"kill {number}: {codes} hangs")
        processes = random.randint(1, 2)
        arguments = command(output, batch_size=4 // processes)
        run_to_the_end(arguments, output, processes=processes, prepare=comparable)
        lost += [f"kill {number} ({place}), then {processes}: {odd}" for odd in apart(results(whole), results(output))]
    return {"tried": "kill -9 of one of two processes, then one or two go on", "times": times, "lost": lost}


def run_to_the_end(arguments: list[str], output: Path, **options: object) -> None:
    """Start a run that nothing kills."""
    codes = start(arguments, output, **options).codes(PATIENCE)
    if any(code != 0 for code in codes):
        sys.exit(f"{output} ended with {codes}: {output.with_name(output.name + '.0.txt').read_text()[-2000:]}")


def apart(first: dict, second: dict) -> list[str]:
    """What differs by more than rounding."""
    odd = [
        name for name, weight in first["weights"].items() if (weight - second["weights"][name]).abs().max() > WEIGHTS
    ]
    for one, other in zip(first["history"], second["history"], strict=True):
        losses = [name for name in one if name.endswith("loss")]
        odd += [f"{name} of epoch {one['epoch']}" for name in losses if abs(one[name] / other[name] - 1) > CURVE]
    return odd


if __name__ == "__main__":
    main()
