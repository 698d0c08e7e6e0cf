"""What each spoken reply sounds like: heard by a recognizer and measured, on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from es4r_toolkit.data import audio
from es4r_toolkit.data.manners import Manner, read_manner
from es4r_toolkit.data.recordings import Progress, unseen
from es4r_toolkit.data.replies import ANSWER, Reply
from es4r_toolkit.errors import AudioError, BackendError, ES4RError
from es4r_toolkit.metrics.prosody import SpokenProsody, measure, require_praat
from es4r_toolkit.metrics.word_errors import spoken_words, word_errors

if TYPE_CHECKING:
    from es4r_toolkit.backends.mos import MosModel
    from es4r_toolkit.protocols import Recognizer

AT_ONCE = 4  # replies that a process takes at a time
FEWEST = 4 * AT_ONCE  # below, another process costs more than it brings


@dataclass(frozen=True)
class Instruments:
    """What replies are measured with, made anew in each process.

    Attributes
    ----------
    recognizer : callable or None
        Gives a Recognizer; without, no word errors are counted.
    mos : callable or None
        Gives a MosModel.
    """

    recognizer: Callable[[], Recognizer] | None = None
    mos: Callable[[], MosModel] | None = None


@dataclass(frozen=True)
class HeardReply:
    """One spoken reply.

    Attributes
    ----------
    id : str
    words : int
        Of its own text, as ``spoken_words`` counts them.
    prosody : SpokenProsody
    manner : Manner or None
        How it was meant to be spoken, where that is known.
    heard : str or None
        What the recognizer wrote down.
    errors : int or None
        Words of it that differ from the text.
    mos : float or None
        What the model of listeners gives it.
    text : str
        What was to be said.
    """

    id: str
    words: int
    prosody: SpokenProsody
    manner: Manner | None = None
    heard: str | None = None
    errors: int | None = None
    mos: float | None = None
    text: str = ""

    @property
    def words_per_second(self) -> float:
        """Pauses counted, silence at either end not."""
        return self.words / self.prosody.speech_seconds

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        whole = asdict(self)
        manner, prosody = whole.pop("manner"), whole.pop("prosody")
        asked = {"strategy": None, "asked": None}
        if manner is not None:
            asked = {"strategy": manner["strategy"], "asked": manner["prosody"]}
        return {**whole, "words_per_second": self.words_per_second, **prosody, **asked}


class Ear:
    """Measures one reply after the other with instruments that are loaded once.

    Arguments
    ---------
    instruments : Instruments

    Raises
    ------
    BackendError
        If an instrument is missing, or a library that measures.
    """

    def __init__(self, instruments: Instruments):
        require_praat()
        spoken_words("")
        self.recognizer = instruments.recognizer and instruments.recognizer()
        self.mos = instruments.mos and instruments.mos()

    def hear(self, reply: Reply) -> HeardReply:
        """Measure a reply.

        Raises
        ------
        AudioError, DialogueError
            If its speech is missing, unreadable or silent, or what lies beside it is broken.
        BackendError
            If an instrument fails.
        """
        if reply.audio is None:
            raise AudioError(reply.id, "has no speech", "answer the dialogue again, or give its audio_path")
        samples, rate = audio.decode(reply.audio)
        try:
            prosody = measure(samples, rate)
        except AudioError as fault:
            raise AudioError(reply.audio, fault.problem, fault.mend) from None
        wanted = spoken_words(reply.text)
        heard = errors = mos = None
        if self.recognizer is not None:
            heard = self.recognizer.transcribe(audio.load(reply.audio, self.recognizer.sample_rate))
            errors = word_errors(wanted, spoken_words(heard))
        if self.mos is not None:
            mos = self.mos.score(audio.load(reply.audio, rate), rate)
        manner = read_manner(reply.audio.with_name(ANSWER))
        return HeardReply(reply.id, len(wanted), prosody, manner, heard, errors, mos, reply.text)


def hear_replies(
    replies: Sequence[Reply], instruments: Instruments, workers: int = 0, progress: Progress = unseen
) -> tuple[list[HeardReply], list[ES4RError]]:
    """Measure many.

    Arguments
    ---------
    replies : sequence of Reply
    instruments : Instruments
    workers : int
        How many processes, each with instruments of its own; 0 is one for each core.
    progress : callable
        Wraps an iterable, given ``unit`` and ``total`` too, to show how far it is.

    Returns
    -------
    heard : list of HeardReply
        In the order of the replies.
    faults : list of ES4RError
        One for each reply that cannot be measured.

    Raises
    ------
    BackendError
        If an instrument is missing, or a process is ended from outside.
    """
    workers = min(workers or os.cpu_count() or 1, -(-len(replies) // AT_ONCE))
    if workers <= 1 or len(replies) < FEWEST:
        ear = Ear(instruments)
        found = [_heard(ear, reply) for reply in progress(replies, unit="reply", total=len(replies))]
    else:
        # Not forked: a process that shows progress has threads.
        context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        with ProcessPoolExecutor(workers, context, _prepare, (instruments,)) as pool:
            try:
                found = list(
                    progress(pool.map(_heard_here, replies, chunksize=AT_ONCE), unit="reply", total=len(replies))
                )
            except BrokenProcessPool as fault:
                problem = "of those that hear replies was ended from outside, as by a lack of memory"
                raise BackendError("a process", problem, "give fewer --workers") from fault
    return (
        [one for one in found if isinstance(one, HeardReply)],
        [one for one in found if isinstance(one, ES4RError)],
    )


def _heard(ear: Ear, reply: Reply) -> HeardReply | ES4RError:
    try:
        return ear.hear(reply)
    except ES4RError as fault:
        return fault


# What a process of the pool measures with.
_own: dict[str, Instruments | Ear] = {}


def _prepare(instruments: Instruments) -> None:
    _own["instruments"] = instruments
    if instruments.recognizer is not None or instruments.mos is not None:
        import torch

        # The processes share the cores already.
        torch.set_num_threads(1)


def _heard_here(reply: Reply) -> HeardReply | ES4RError:
    if "ear" not in _own:
        # Not when the process starts, where its fault would be lost.
        _own["ear"] = Ear(_own["instruments"])
    return _heard(_own["ear"], reply)
