"""EspeakProcess: the process of espeak_worker.py, started when first asked, and again where it died."""

from __future__ import annotations

import json
import logging
import os
import re
import struct
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from es4r_toolkit.errors import BackendError

logger = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("espeak_worker.py")
_BASE_VOICE = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


class EspeakProcess:
    """Answers requests by espeak-ng (from the wheel ``espeakng_loader``), each as the first of a process.

    Raises
    ------
    BackendError
        When first asked, if the wheel is missing.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.worker: _Worker | None = None

    def ask(self, request: dict[str, Any]) -> tuple[int, dict[str, Any], bytes]:
        """A request of espeak_worker.py -> sample rate (Hz), what it tells, int16 samples.

        Raises
        ------
        BackendError
            If the voice is unknown, or espeak-ng refuses the request or fails.
        """
        with self._lock:
            sample_rate, body = self._ask(request)
        if sample_rate == 0:
            problem = body.decode(errors="replace")
            raise BackendError(f"espeak voice {request['voice']!r}", problem, "try another text or voice")
        start = 4 + struct.unpack("<I", body[:4])[0]
        return sample_rate, json.loads(body[4:start]), body[start:]

    @property
    def version(self) -> str:
        """Version of espeak-ng, such as 1.52.0; starts the worker."""
        with self._lock:
            return self._running().version

    def close(self) -> None:
        """End the worker process; the next request starts another."""
        with self._lock:
            if self.worker is not None:
                self.worker.stop()
                self.worker = None

    def _running(self) -> _Worker:
        if self.worker is not None and not self.worker.usable():
            self.worker.stop()
            self.worker = None
        if self.worker is None:
            self.worker = _Worker()
            weakref.finalize(self, self.worker.stop)
        return self.worker

    def _ask(self, request: dict[str, Any]) -> tuple[int, bytes]:
        for attempt in (1, 2):
            worker = self._running()
            worker.check_voice(str(request["voice"]))
            try:
                return worker.ask(request)
            except (OSError, EOFError) as error:
                self.close()
                if attempt == 2:
                    raise BackendError(
                        "espeak", f"its worker process died twice ({error})", "see its stderr"
                    ) from error
                logger.warning("espeak's worker process died; it is started again")


class _Worker:
    """The process of espeak_worker.py and the pipes to it."""

    def __init__(self):
        try:
            import espeakng_loader
        except ImportError as error:
            raise BackendError(
                "espeak", "the wheel espeakng_loader is not installed", "pip install 'es4r-toolkit[espeak]'"
            ) from error
        if not hasattr(os, "fork"):
            raise BackendError("espeak", "needs a system with fork", "use Linux or macOS, or another voice")
        library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
        self.variants = {path.name for path in (Path(data) / "voices" / "!v").iterdir()}
        self.owner = os.getpid()
        command = [sys.executable, "-I", "-S", str(WORKER), library, data]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            sample_rate, greeting = self._read_reply()
        except EOFError as error:
            self.stop()
            raise BackendError("espeak", "its worker process ended at once", "see its stderr") from error
        self.version = greeting.decode(errors="replace")
        if sample_rate == 0:
            self.stop()
            raise BackendError("espeak", self.version, "reinstall: pip install --force-reinstall espeakng-loader")

    def usable(self) -> bool:
        # A process forked from the owner shares the pipes: two askers would read one another's speech.
        return self.owner == os.getpid() and self.process.poll() is None

    def check_voice(self, voice: str) -> None:
        """espeak-ng ignores an unknown variant in silence, so this looks it up."""
        base, plus, variant = voice.partition("+")
        if not _BASE_VOICE.fullmatch(base):
            raise BackendError(f"espeak voice {voice!r}", "is no voice name", "use one such as en-us or en-us+f3")
        if plus and variant not in self.variants:
            known = ", ".join(sorted(self.variants))
            raise BackendError(f"espeak voice {voice!r}", f"has no variant {variant!r}", f"use one of {known}")

    def ask(self, request: dict[str, object]) -> tuple[int, bytes]:
        body = json.dumps(request).encode()
        self.process.stdin.write(struct.pack("<I", len(body)) + body)
        self.process.stdin.flush()
        return self._read_reply()

    def _read_reply(self) -> tuple[int, bytes]:
        sample_rate, count = struct.unpack("<II", self._read(8))
        return sample_rate, self._read(count)

    def _read(self, count: int) -> bytes:
        data = self.process.stdout.read(count)
        if len(data) < count:
            raise EOFError(f"{len(data)} of {count} bytes")
        return data

    def stop(self) -> None:
        if self.owner != os.getpid():
            return
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                logger.debug("espeak's worker process was gone before its pipe was closed")
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
