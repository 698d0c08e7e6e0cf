"""Corpora of text, spoken: each text once by a voice of its own, in files that an interrupted run goes on from."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from es4r_toolkit.data import audio
from es4r_toolkit.data.published import in_parallel
from es4r_toolkit.data.records import FieldError
from es4r_toolkit.data.responses import make_folder
from es4r_toolkit.errors import AudioError, BackendError, ConfigError, require
from es4r_toolkit.hparams import build, compose
from es4r_toolkit.protocols import SpeechSynthesizer

TRIAL = "I am here."


@dataclass(frozen=True)
class Line:
    """A text and the voice that speaks it.

    Attributes
    ----------
    text : str
    voice : str
        The YAML of the synthesizer, with all its settings.
    path : Path
        Where the recording goes: a name made of the two, so that it changes with them.
    """

    text: str
    voice: str
    path: Path


class CorpusSpeaker:
    """Speaks the turns of a corpus by any synthesizer.

    Arguments
    ---------
    synthesizer : Path
        A YAML fragment that holds ``model``, such as those of ``recipes/_shared/tts``.
    voices : mapping of str to sequence of mapping
        Of each role: the voices it may have, each as values of the fragment's keys. A conversation has one of them.
    folder : Path
        Where recordings go; what is there already is not spoken again.
    workers : int
        Threads that speak. Each has its own synthesizer for each voice: one is enough for a neural voice.

    Raises
    ------
    ConfigError
        If a role has no voice, or a voice has a value that the fragment does not know.
    """

    def __init__(
        self, synthesizer: Path, voices: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path, workers: int
    ):
        require(type(workers) is int and workers > 0, "workers", workers, "must be a whole number above 0")
        for role, choices in voices.items():
            if not choices:
                raise ConfigError(f"voices.{role}", "is empty", "give it a voice, such as {voice: en-us+f3}")
        self.voices = {role: [compose(synthesizer, voice) for voice in choices] for role, choices in voices.items()}
        self.folder, self.workers = folder, workers

    def line(self, role: str, conversation: str, text: str) -> Line:
        """The line of a text, by the voice that the role has in a conversation."""
        choices = self.voices[role]
        voice = choices[zlib.crc32(conversation.encode()) % len(choices)]
        name = hashlib.sha256(f"{voice}\n{text}".encode()).hexdigest()[:32]
        return Line(text, voice, self.folder / name[:2] / f"{name}.wav")

    def speak(self, lines: Iterable[Line]) -> dict[Path, FieldError]:
        """Speak what is not spoken yet; gives what cannot be, and why.

        Raises
        ------
        BackendError, ConfigError
            If a voice cannot speak at all.
        """
        waiting = list({line.path: line for line in lines if not line.path.is_file()}.values())
        for folder in {line.path.parent for line in waiting}:
            make_folder(folder)
        free: SimpleQueue[dict[str, SpeechSynthesizer]] = SimpleQueue()
        with contextlib.ExitStack() as opened:

            def say(line: Line) -> FieldError | None:
                booth = free.get()
                try:
                    if line.voice not in booth:
                        booth[line.voice] = _open(line.voice, opened)
                    voice = booth[line.voice]
                    audio.save(line.path, voice.synthesize(line.text), voice.sample_rate)
                except (BackendError, AudioError) as error:
                    return FieldError("utterance", f"cannot be spoken: {error.item} {error.problem}", error.mend)
                finally:
                    free.put(booth)
                return None

            # A voice that lacks its library or weights would make every text a fault.
            booth = {voice: _open(voice, opened) for voice in sorted({line.voice for line in waiting})}
            for voice in booth.values():
                voice.synthesize(TRIAL)
            free.put(booth)
            for _ in range(self.workers - 1):
                free.put({})
            faults = list(in_parallel(say, waiting, self.workers, "speaking", "turn"))
        return {line.path: fault for line, fault in zip(waiting, faults) if fault is not None}


def _open(voice: str, opened: contextlib.ExitStack) -> SpeechSynthesizer:
    synthesizer = build(voice)["model"]
    if hasattr(synthesizer, "close"):
        opened.callback(synthesizer.close)
    return synthesizer
