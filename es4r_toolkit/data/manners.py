"""How replies were meant to be spoken: the strategy and the prosody that `es4r respond` writes beside their speech."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from es4r_toolkit.data.records import read_json, read_text
from es4r_toolkit.errors import DialogueError

# The fields of Prosody, and what each is where nothing is asked.
NEUTRAL = {"rate": 1.0, "expressiveness": 1.0, "pitch_shift": 0.0, "energy": 0.0}
FACTORS = ("rate", "expressiveness")


@dataclass(frozen=True)
class Manner:
    """What was asked of the voice for one reply.

    Attributes
    ----------
    strategy : str
    prosody : dict of str to float
        The fields of Prosody.
    honours : frozenset of str or None
        Those of them that the voice says it follows; None where nothing says so.
    """

    strategy: str
    prosody: dict[str, float]
    honours: frozenset[str] | None = None


def read_manner(path: str | Path) -> Manner | None:
    """Read a ``response.json``; None where there is none, or it names no strategy.

    Raises
    ------
    DialogueError
        If it is broken.
    """
    path = Path(path)
    if not path.is_file():
        return None
    answer = read_json(path, read_text(path))
    if not isinstance(answer, dict) or answer.get("strategy") is None:
        return None
    strategy, prosody, honours = answer["strategy"], answer.get("prosody", {}), answer.get("honours")
    sound = isinstance(strategy, str) and isinstance(prosody, dict) and all(map(_is_number, prosody.values()))
    sound = sound and all(prosody.get(name, 1.0) > 0 for name in FACTORS)
    if not sound or not (honours is None or (isinstance(honours, list) and all(isinstance(n, str) for n in honours))):
        raise DialogueError(path, "has a strategy or a prosody that cannot be read", "answer the dialogue again")
    asked = {name: float(prosody.get(name, neutral)) for name, neutral in NEUTRAL.items()}
    return Manner(strategy, asked, None if honours is None else frozenset(honours))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
