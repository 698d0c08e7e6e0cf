"""Limits: how much one request may ask for, and how many may ask at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from es4r_toolkit.data.audio import DEFAULT_LIMITS, AudioLimits
from es4r_toolkit.errors import require

MOST_RUNNING = 16  # replies at once; each holds two threads and one more that waits for its events


@dataclass(frozen=True)
class Limits:
    """What one request may ask for; everything outside is refused before anything is decoded.

    Attributes
    ----------
    body_bytes : int
        Of a whole request; 32 MiB holds ten minutes of 16 kHz WAV in base64.
    values : int
        Commas and brackets of a JSON text, which bound what its parsed values take.
    turns : int
        Of a dialogue.
    text_characters : int
        Of one turn.
    turn_seconds, seconds : float
        Of speech, in one turn and in all together.
    upload_seconds : float
        For the head of a request to arrive, and then for its body.
    reply_seconds : float
        From there to the end of the reply, waiting among them.
    running : int
        Replies at once.
    waiting : int
        Requests that may wait for one of these to end, their bodies arriving or in memory.

    Raises
    ------
    ConfigError
        If one is not positive, or too many replies would run at once.

    Example
    -------
    >>> Limits(running=2).seats
    18
    """

    body_bytes: int = 32 * 1024 * 1024
    values: int = 50_000
    turns: int = 64
    text_characters: int = 2000
    turn_seconds: float = 120.0
    seconds: float = 600.0
    upload_seconds: float = 30.0
    reply_seconds: float = 60.0
    running: int = 4
    waiting: int = 16

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value > 0 or (name == "waiting" and value == 0), name, value, "must be positive")
        require(self.running <= MOST_RUNNING, "running", self.running, f"must be at most {MOST_RUNNING}")

    @property
    def seats(self) -> int:
        """Requests that may be under way at once."""
        return self.running + self.waiting

    def of_recording(self) -> AudioLimits:
        """What one recording may be."""
        return replace(DEFAULT_LIMITS, max_seconds=self.turn_seconds, max_bytes=self.body_bytes, max_sample_rate=96_000)
