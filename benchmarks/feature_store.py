"""Where log-mels are best kept: in LMDB, in HDF5, or in a safetensors file each; and what a kept style saves.

python benchmarks/feature_store.py needs lmdb and h5py. For each: items written and read a second, in a drawn order and
by a process of its own; whether two processes may write at once; and what a process killed while it writes leaves.

python benchmarks/feature_store.py styles needs styletts2: seconds to compute the style of a turn with style encoders of
the published size, random weights, against seconds to read it again, and bytes on disk.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

ITEMS, MELS = 1500, 80
KILLED_AFTER = 0.7  # seconds


def item(number: int) -> np.ndarray:
    """A log-mel of 2 to 10 s."""
    frames = random.Random(number).randint(200, 1000)
    return np.random.default_rng(number).standard_normal((frames, MELS), dtype=np.float32)


def lmdb_write(folder: Path, numbers: Iterable[int]) -> None:
    """A transaction an item, so that each is there or not."""
    import lmdb

    with lmdb.open(str(folder / "store"), map_size=1 << 36) as store:
        for number in numbers:
            with store.begin(write=True) as step:
                step.put(str(number).encode(), item(number).tobytes())


def lmdb_read(folder: Path, numbers: Iterable[int]) -> int:
    """How many are there and whole."""
    import lmdb

    with lmdb.open(str(folder / "store"), readonly=True, lock=False) as store, store.begin() as look:
        found = (look.get(str(number).encode()) for number in numbers)
        return sum(np.frombuffer(value, np.float32).reshape(-1, MELS).sum() is not None for value in found if value)


def hdf5_write(folder: Path, numbers: Iterable[int]) -> None:
    """As SpeechBrain's CachedHDF5DynamicItem does."""
    import h5py

    with h5py.File(folder / "store.hdf5", "a") as store:
        for number in numbers:
            store.create_dataset(str(number), data=item(number))


def hdf5_read(folder: Path, numbers: Iterable[int]) -> int:
    """How many are there and whole."""
    import h5py

    with h5py.File(folder / "store.hdf5", "r") as store:
        return sum(store[str(number)][:].sum() is not None for number in numbers if str(number) in store)


def files_write(folder: Path, numbers: Iterable[int]) -> None:
    """Written beside its place and renamed."""
    from safetensors.numpy import save_file

    for number in numbers:
        save_file({"mel": item(number)}, folder / f"{number}.part")
        os.replace(folder / f"{number}.part", folder / f"{number}.safetensors")


def files_read(folder: Path, numbers: Iterable[int]) -> int:
    """How many are there and whole."""
    from safetensors.numpy import load_file

    paths = (folder / f"{number}.safetensors" for number in numbers)
    return sum(load_file(path)["mel"].sum() is not None for path in paths if path.is_file())


STORES: dict[str, tuple[Callable, Callable]] = {
    "LMDB": (lmdb_write, lmdb_read),
    "HDF5": (hdf5_write, hdf5_read),
    "safetensors files": (files_write, files_read),
}


def measure(name: str) -> dict[str, object]:
    """One store."""
    with tempfile.TemporaryDirectory() as folder:
        made = _timed(name, "write", folder, 0, ITEMS)
        read = _timed(name, "read", folder, 0, ITEMS)
        size = sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as folder:
        pair = [_start(name, "write", folder, first, first + ITEMS // 2) for first in (0, ITEMS // 2)]
        errors = [process.communicate()[1].strip().split("\n")[-1] for process in pair]
        failed = [error for process, error in zip(pair, errors) if process.returncode]
        together = failed[0] if failed else f"{_found(name, folder)} of {ITEMS} there"
    with tempfile.TemporaryDirectory() as folder:
        process = _start(name, "write", folder, 0, 100 * ITEMS)
        time.sleep(KILLED_AFTER + 1.0)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed = _found(name, folder)
    raw = sum(item(number).nbytes for number in range(ITEMS))
    return {
        "written_per_s": round(ITEMS / made),
        "read_per_s": round(ITEMS / read),
        "size_over_raw": round(size / raw, 3),
        "two_writers": together,
        "found_after_a_kill": killed,
    }


def _start(name: str, what: str, folder: str, first: int, last: int) -> subprocess.Popen:
    command = [sys.executable, __file__, name, what, folder, str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _timed(name: str, what: str, folder: str, first: int, last: int) -> float:
    out, error = (process := _start(name, what, folder, first, last)).communicate()
    if process.returncode:
        raise RuntimeError(error)
    return json.loads(out)["seconds"]


def _found(name: str, folder: str) -> object:
    out, error = (process := _start(name, "read", folder, 0, 100 * ITEMS)).communicate()
    return json.loads(out)["found"] if process.returncode == 0 else error.strip().split("\n")[-1]


def _child(name: str, what: str, folder: str, first: str, last: str) -> None:
    numbers = list(range(int(first), int(last)))
    for number in numbers[:1]:
        item(number)
    random.Random(0).shuffle(numbers)
    write, read = STORES[name]
    began = time.perf_counter()
    found = (write if what == "write" else read)(Path(folder), numbers)
    print(json.dumps({"seconds": time.perf_counter() - began, "found": found}))


def measure_styles(turns: int = 20, seconds: float = 5.0) -> dict[str, object]:
    """Styles of noise of so many seconds, made and read in turn, so that neighbours slow down both."""
    import torch

    from es4r_toolkit.data import audio
    from es4r_toolkit.data.feature_store import StyleStore
    from es4r_toolkit.dialogue import Turn

    voice = _published_size()
    with tempfile.TemporaryDirectory() as folder:
        # The other knows nothing of the recordings beforehand.
        store, other = (StyleStore(Path(folder) / "store", voice, 16000) for _ in range(2))
        made, read = [], []
        for number in range(turns):
            wave = 0.1 * torch.randn(int(16000 * seconds), generator=torch.Generator().manual_seed(number))
            audio.save(Path(folder) / f"{number}.wav", wave, 16000)
            turn = Turn("speaker", "Hm.", Path(folder) / f"{number}.wav")
            for asked, took in ((store, made), (other, read)):
                began = time.perf_counter()
                asked.style(turn)
                took.append(time.perf_counter() - began)
        (size,) = {path.stat().st_size for path in store.folder.rglob("*.safetensors")}
    computed, kept = (sorted(took)[turns // 2] for took in (made, read))
    return {"made_s": round(computed, 4), "read_s": round(kept, 4), "ratio": round(computed / kept), "bytes": size}


def _published_size() -> object:
    """StyleTTS 2 as far as styles need it: two encoders as wide as its authors', with random weights."""
    import torch
    from styletts2.models import StyleEncoder
    from torchaudio.transforms import MelSpectrogram

    from es4r_toolkit.backends.styletts2 import HOP, StyleTTS2Synthesizer

    class Encoders(StyleTTS2Synthesizer):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            sizes = {"dim_in": 64, "style_dim": 128, "max_conv_dim": 512}
            names = ("style_encoder", "predictor_encoder")
            self.parts = torch.nn.ModuleDict({name: StyleEncoder(**sizes) for name in names})
            self.style_dim = 2 * sizes["style_dim"]
            self.mel = MelSpectrogram(sample_rate=16000, n_mels=80, n_fft=2048, win_length=1200, hop_length=HOP)
            self.eval()

    return Encoders()


if __name__ == "__main__":
    if sys.argv[1:] == ["styles"]:
        print(json.dumps(measure_styles(), indent=2))
    elif len(sys.argv) > 1:
        _child(*sys.argv[1:])
    else:
        print(json.dumps({name: measure(name) for name in STORES}, indent=2))
