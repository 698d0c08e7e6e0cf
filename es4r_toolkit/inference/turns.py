"""TurnMemory: turns that were heard before are not heard again."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace

from torch import Tensor

from es4r_toolkit.data.heard import HeardTurn
from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import AudioError

SECONDS = 1800.0


class TurnMemory:
    """Heard turns by what their recordings hold; the one not asked for longest is forgotten first.

    Arguments
    ---------
    seconds : float
        Of speech that it holds at most, a turn counting for a second at least; an hour of 80 mels takes 115 MB.
    """

    def __init__(self, seconds: float = SECONDS):
        self.seconds, self._held = seconds, 0.0
        self._turns: OrderedDict[Hashable, HeardTurn] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._turns)

    def get(self, key: Hashable, turn: Turn) -> HeardTurn | None:
        """What was heard in this recording, as this turn; None where it was not."""
        with self._lock:
            found = self._turns.get(key)
            if found is None:
                return None
            self._turns.move_to_end(key)
        known = found.turn
        words = {} if turn.is_written else {"text": known.text, "recognizer": known.recognizer}
        return replace(found, turn=replace(turn, **words))

    def keep(self, key: Hashable, heard: HeardTurn) -> None:
        """Remember a turn."""
        with self._lock:
            if key in self._turns:
                return
            self._turns[key], self._held = heard, self._held + _cost(heard)
            while self._held > self.seconds and len(self._turns) > 1:
                _, oldest = self._turns.popitem(last=False)
                self._held -= _cost(oldest)


def key_of(turn: Turn, waveform: Tensor | None) -> Hashable:
    """What tells one turn from another: its samples, or its file as it is now; and whether its words are given.

    Raises
    ------
    AudioError
        If there are neither.
    """
    if waveform is not None:
        samples = waveform.detach().cpu().contiguous().numpy()
        return hashlib.blake2b(samples.tobytes(), digest_size=16).digest(), turn.is_written
    if turn.audio is None:
        raise AudioError(f"a turn of the {turn.role}", "has no recording", "give a file, or a waveform and its rate")
    try:
        found = turn.audio.stat()
    except OSError:
        raise AudioError(turn.audio, "does not exist", "correct the path, or put the recording there") from None
    # The last two cannot be set back by who copies one file over another.
    version = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    return str(turn.audio.resolve()), version, turn.start, turn.stop, turn.is_written


def _cost(heard: HeardTurn) -> float:
    return max(heard.seconds, 1.0)
