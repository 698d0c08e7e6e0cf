"""Turn and Dialogue: what the whole project speaks of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SPEAKER = "speaker"
LISTENER = "listener"
ROLES = (SPEAKER, LISTENER)


@dataclass(frozen=True)
class Turn:
    """One utterance of one person.

    Attributes
    ----------
    role : str
        ``speaker`` (who seeks empathy) or ``listener`` (who gives it).
    text : str
        The transcript; empty where nobody wrote it down yet.
    audio : Path or None
        The recording.
    emotion : str or None
        A label, where the corpus has one; only the optional emotion head learns from it.
    recognizer : str or None
        Which recognizer wrote the text; None where it came with the recording.
    start, stop : float
        The part of the recording that is this turn (seconds); None is to its end.
    speaker_id : str or None
        Who speaks, where the corpus says.
    """

    role: str
    text: str
    audio: Path | None = None
    emotion: str | None = None
    recognizer: str | None = None
    start: float = 0.0
    stop: float | None = None
    speaker_id: str | None = None

    @property
    def is_speaker(self) -> bool:
        return self.role == SPEAKER

    @property
    def is_written(self) -> bool:
        """Whether its words are known; a recognizer may have found that there are none."""
        return bool(self.text) or self.recognizer is not None


@dataclass(frozen=True)
class Dialogue:
    """A history of turns and, where known, the listener's reply to it.

    Attributes
    ----------
    id : str
        Unique in its manifest.
    history : tuple of Turn
        Oldest first; at least one speaker turn.
    response : Turn or None
        The reference reply.
    slots : dict
        What the reply should say, for corpora that know (AffectProbe).
    split : str or None
        Which of its corpus's splits it is of, where the manifest says.
    """

    id: str
    history: tuple[Turn, ...]
    response: Turn | None = None
    slots: dict[str, str] = field(default_factory=dict)
    split: str | None = None

    def __len__(self) -> int:
        return len(self.history)

    @property
    def is_written(self) -> bool:
        """Whether the words of every history turn are known."""
        return all(turn.is_written for turn in self.history)
