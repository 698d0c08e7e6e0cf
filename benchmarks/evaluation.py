"""How long es4r evaluate takes on many pairs: seconds of the clock and of the processor, as JSON.

    python benchmarks/evaluation.py --pairs 10000

Replies are references of one to three sentences in which most words are drawn anew. METEOR is timed where NLTK has a
WordNet.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [f"{first}{last}" for first in ("ba", "co", "du", "fe", "gi", "lo") for last in ("", "n", "ring", "ster", "ly")]


def main() -> int:
    """Write the pairs, evaluate them, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "predictions.jsonl")
        write_pairs(path, pairs)
        start = time.perf_counter()
        command = [sys.executable, "-m", "es4r_toolkit.cli", "evaluate", str(path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    scored = json.loads(done.stdout)["metrics"]
    found = {
        "pairs": scored["scored"],
        "meteor": "meteor" in scored,
        "seconds": round(seconds, 1),
        "processor_seconds": round(spent.ru_utime + spent.ru_stime, 1),
        "peak_mb": round(spent.ru_maxrss / 1024),
    }
    print(json.dumps(found))
    return 0


def write_pairs(path: Path, number: int) -> None:
    """As many predictions as are asked for; the same every time."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for place in range(number):
            lengths = [draw.randint(5, 16) for _ in range(draw.randint(1, 3))]
            wanted = [[draw.choice(WORDS) for _ in range(length)] for length in lengths]
            said = [[word if draw.random() < 0.35 else draw.choice(WORDS) for word in words] for words in wanted]
            response, reference = (" ".join(" ".join(words) + "." for words in text) for text in (said, wanted))
            file.write(json.dumps({"id": str(place), "response": response, "reference": reference}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
