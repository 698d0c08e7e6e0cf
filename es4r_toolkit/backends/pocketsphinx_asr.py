"""PocketsphinxRecognizer: English from a wheel that carries its own model; nothing to download."""

from __future__ import annotations

import logging
import os
import select
import struct
import subprocess
import sys
import threading
import weakref
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from es4r_toolkit.cancelling import MOMENT, end_if_cancelled, holding
from es4r_toolkit.errors import BackendError

logger = logging.getLogger(__name__)

RATE = 16000  # Hz, that of its acoustic model
SILENCE = 1e-4  # -80 dB of full scale
WORKER = Path(__file__).with_name("pocketsphinx_worker.py")


class PocketsphinxRecognizer:
    """Writes down English with CMU Sphinx's small model.

    It is right about clear speech and loses words in noise, accents and
    emotion: good enough to try a dialogue without transcripts, no stand-in
    for Whisper. The model is read when first asked, in under a second, by a
    process of its own: the library holds Python's lock while it listens, and
    every other thread would stand still for as long as a turn takes.

    Raises
    ------
    BackendError
        When first asked, if the wheel is missing.
    """

    name = identity = "pocketsphinx"
    sample_rate = RATE

    def __init__(self) -> None:
        self._worker: subprocess.Popen | None = None
        self._owner = 0
        self._lock = threading.RLock()

    def transcribe(self, waveform: Tensor) -> str:
        """A recording (samples,) within [-1, 1] at ``sample_rate`` -> its words in lower case, "" where it hears none.

        What was heard before changes nothing. Work that is cancelled ends at once, and the process with it.
        """
        if not bool((waveform.abs() > SILENCE).any()):
            # Its language model would find a word in nothing.
            return ""
        samples = (waveform.detach().cpu().float().clamp(-1, 1) * 32767).short().numpy().tobytes()
        with holding(self._lock):
            try:
                return self._asked_twice(samples)
            except BaseException:
                # What it may still answer is no answer to the next recording.
                self.close()
                raise

    def close(self) -> None:
        """End the worker process; the next recording starts another."""
        # A process forked from the owner shares the pipes, and must leave them alone.
        if self._worker is not None and self._owner == os.getpid():
            self._end()
        self._worker = None

    def _asked_twice(self, samples: bytes) -> str:
        try:
            return _ask(self._running(), samples)
        except (OSError, EOFError):
            self.close()
            logger.warning("pocketsphinx's worker process died; it is started again")
        try:
            return _ask(self._running(), samples)
        except (OSError, EOFError) as fault:
            problem = f"its worker process died twice ({fault})"
            raise BackendError("pocketsphinx", problem, "see its stderr") from fault

    def _running(self) -> subprocess.Popen:
        if self._worker is None or self._owner != os.getpid() or self._worker.poll() is not None:
            self.close()
            if find_spec("pocketsphinx") is None:
                raise BackendError(
                    "pocketsphinx", "is not installed", "pip install 'es4r-toolkit[asr]', or write the transcripts"
                )
            command = [sys.executable, "-I", str(WORKER)]
            # Unbuffered, so that select tells of all that has come.
            self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            self._owner = os.getpid()
            self._end = weakref.finalize(self, _stop, self._worker)
        return self._worker


def _ask(worker: subprocess.Popen, samples: bytes) -> str:
    left = memoryview(struct.pack("<I", len(samples)) + samples)
    while left:
        left = left[worker.stdin.write(left) :]
    return _read(worker, struct.unpack("<I", _read(worker, 4))[0]).decode()


def _read(worker: subprocess.Popen, count: int) -> bytes:
    data = b""
    while len(data) < count:
        ready, _, _ = select.select([worker.stdout], [], [], MOMENT)
        end_if_cancelled()
        if ready:
            part = os.read(worker.stdout.fileno(), count - len(data))
            if not part:
                raise EOFError(f"{len(data)} of {count} bytes")
            data += part
    return data


def _stop(worker: subprocess.Popen) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        try:
            pipe.close()
        except OSError:
            continue  # it held a request that nobody took
