"""The fuzz targets hold on their seeds and near them, and on every input that once broke them.

ES4R_SOAK=1 python -m pytest tests/fuzz      # a hundred times as many; fuzz_*.py are guided by coverage
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from soak import examples

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS, seeds

# A name that is given twice is no fault of a file.
pytestmark = pytest.mark.filterwarnings("ignore::ruamel.yaml.error.ReusedAnchorWarning")

# What a fuzzer does to an input: other bytes, numbers at the edge, a piece lost, doubled or moved.
NUMBERS = [value.to_bytes(size, order) for size in (1, 2, 4, 8) for order in ("little", "big") for value in (0, 1, 127)]
NUMBERS += [bytes([255]) * size for size in (1, 2, 4, 8)] + [b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]


def near(seed: bytes, chance: random.Random) -> bytes:
    """A seed with a few faults."""
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        first, size = chance.randrange(len(data) + 1), chance.randint(1, 40)
        piece = data[first : first + size]
        match chance.randrange(5):
            case 0:
                data[first : first + 1] = bytes([chance.randrange(256)])
            case 1:
                number = chance.choice(NUMBERS)
                data[first : first + len(number)] = number
            case 2:
                del data[first : first + size]
            case 3:
                data[first:first] = piece * chance.randint(1, 3)
            case 4:
                other = chance.randrange(len(data) + 1)
                data[other : other + size] = piece
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_and_what_lies_near_them_hold(target):
    chance = random.Random(0)
    starts = seeds(target)
    for seed in starts:
        TARGETS[target](seed)
    for count in range(examples(60)):
        data = near(starts[count % len(starts)], chance)
        try:
            TARGETS[target](data)
        except Exception as fault:
            raise AssertionError(f"{target} breaks on {data!r}") from fault


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_is_too_short(target):
    for data in (b"", *(bytes([byte]) for byte in range(256))):
        TARGETS[target](data)


# Found by fuzz_audio.py: 63 bytes at 8002 Hz, to resample which took a second and half a gigabyte.
ODD_RATE = (
    b"\x00RIFF\xb6\x00\x00\x00WAVEfmt \x14\x00\x00\x001\x00\x01\x00B\x1f\x00\x00"
    b"Y\x06\x00\x00A\x00\x00\x00\x02\x00@\x01fact\x00\x00\x00\x00\x00\x00P\x00data\x00\x00\x07TH\x92"
)


def test_a_small_recording_of_an_odd_rate_costs_little(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a kernel for {arguments[1:]}")

    monkeypatch.setattr("torchaudio.functional.resample", refuse)
    TARGETS["audio"](ODD_RATE)
