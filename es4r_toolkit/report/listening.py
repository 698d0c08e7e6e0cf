"""A blind listening test: two systems' replies to the same dialogues on one page that needs no other file."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from es4r_toolkit.data import audio
from es4r_toolkit.data.listening import ASPECTS, COLUMNS, SIDES, SPEECH, TEXT, Key, KeyItem
from es4r_toolkit.data.replies import Reply
from es4r_toolkit.dialogue import Turn
from es4r_toolkit.errors import AudioError, DialogueError, ES4RError, require
from es4r_toolkit.report.listening_sound import one_rate, sound_address
from es4r_toolkit.report.pages import render_template, write_page

KINDS = {"all": (SPEECH, TEXT), "speech": (SPEECH,), "text": (TEXT,)}


@dataclass(frozen=True)
class Pair:
    """Two replies to one dialogue.

    Attributes
    ----------
    first, second : Reply
        Of the first and of the second system.
    history : tuple of Turn
        What they reply to; empty where nothing is known of it.
    """

    first: Reply
    second: Reply
    history: tuple[Turn, ...] = ()

    @property
    def is_spoken(self) -> bool:
        return None not in (self.first.audio, self.second.audio)


@dataclass(frozen=True)
class ListeningTest:
    """A test, ready to be written.

    Attributes
    ----------
    content : dict
        What the page holds: texts, sounds and questions, and nothing of who is who.
    key : Key
        Who is who.
    remarks : dict of str to list of str
        What should be known of the test -> the dialogues or recordings it is true of.
    faults : list of ES4RError
        Recordings that cannot be used.
    """

    content: dict[str, object]
    key: Key
    remarks: dict[str, list[str]]
    faults: list[ES4RError] = field(default_factory=list)

    def write(self, page: Path, key: Path) -> None:
        """Write the page for raters, and the key that stays at home.

        Raises
        ------
        ConfigError, DialogueError
            If one cannot be written, or the key would take the place of another test's.
        """
        items = self.content["items"]
        text = render_template(
            "listening.html",
            test=self.content,
            count=len(items),
            speech=any(SPEECH in _kinds(item["aspects"]) for item in items),
            history=any(item["history"] for item in items),
            heard=any(turn["sound"] is not None for item in items for turn in item["history"]),
        )
        # The key first: a page without one would be worthless.
        self.key.write(key)
        write_page(page, text)


def pair_replies(
    first: Sequence[Reply], second: Sequence[Reply], histories: Mapping[str, tuple[Turn, ...]] | None = None
) -> tuple[list[Pair], dict[str, list[str]]]:
    """Pair replies by the dialogue they answer.

    Arguments
    ---------
    first, second : sequence of Reply
        Of two systems.
    histories : dict of str to tuple of Turn, or None
        By dialogue. Where it is given, a dialogue that is not in it is left out.

    Returns
    -------
    pairs : list of Pair
        In the order of the first system.
    remarks : dict of str to list of str
        Why dialogues were left out -> their ids.
    """
    others = {reply.id: reply for reply in second}
    known = set(others) if histories is None else set(others) & set(histories)
    pairs = [Pair(reply, others[reply.id], (histories or {}).get(reply.id, ())) for reply in first if reply.id in known]
    names = [{reply.id for reply in replies} for replies in (first, second)]
    remarks = {
        "answered by the first system alone, left out": sorted(names[0] - names[1]),
        "answered by the second system alone, left out": sorted(names[1] - names[0]),
        "without a history among the dialogues, left out": sorted((names[0] & names[1]) - known),
    }
    return pairs, {remark: ids for remark, ids in remarks.items() if ids}


def make_test(
    pairs: Sequence[Pair],
    systems: tuple[str, str],
    questions: str = "all",
    seed: int = 0,
    number: int | None = None,
    history_audio: bool = True,
    progress: Callable[..., Iterable[Pair]] = iter,
) -> ListeningTest:
    """Make a test of pairs of replies.

    Arguments
    ---------
    pairs : sequence of Pair
        One for each dialogue.
    systems : tuple of str
        What the two are called; in the key alone.
    questions : str
        ``speech``, ``text`` or ``all``. A pair of which one reply is not spoken is asked on its text alone.
    seed : int
        Of which dialogues are taken, of their order, and of which reply is which.
    number : int or None
        How many dialogues are taken, by chance; None is all.
    history_audio : bool
        Whether the recordings of the history are on the page.
    progress : callable
        Wraps the pairs while their sounds are read.

    Raises
    ------
    ConfigError, DialogueError
        If the questions are others, or nothing is left to ask.

    Example
    -------
    >>> pair = Pair(Reply("7", "I hear you.", None), Reply("7", "Cheer up!", None))
    >>> test = make_test([pair], ("ours", "theirs"))
    >>> test.key.items["1"].aspects
    ('topic', 'emotion', 'specificity', 'action', 'empathy')
    """
    require(questions in KINDS, "questions", questions, f"must be one of {', '.join(KINDS)}")
    require(number is None or number > 0, "number", number, "must be positive")
    kinds, draw, sounds = KINDS[questions], random.Random(seed), _Sounds()
    chosen, silent = _choose(draw.sample(list(pairs), len(pairs)), kinds, number, sounds)
    if not chosen:
        raise DialogueError("test", "has nothing to ask", "give two systems' replies to the same dialogues")
    items, key = [], {}
    for place, pair in enumerate(progress(chosen), start=1):
        asked = [kind for kind in kinds if kind == TEXT or pair.is_spoken]
        aspects = tuple(name for name, aspect in ASPECTS.items() if aspect.kind in asked)
        replies = dict(zip(SIDES, draw.sample([pair.first, pair.second], 2)))
        history = [
            {"role": turn.role, "text": turn.text, "sound": sounds.add_turn(turn) if history_audio else None}
            for turn in pair.history
        ]
        sides = {
            side: {"text": reply.text, "sound": sounds.add_reply(reply) if SPEECH in asked else None}
            for side, reply in replies.items()
        }
        items.append({"name": str(place), "aspects": aspects, "history": history, **sides})
        key[str(place)] = KeyItem(pair.first.id, "x" if replies["x"] is pair.first else "y", aspects)
    known = [vars(aspect) for aspect in ASPECTS.values() if aspect.kind in kinds]
    content = {"columns": COLUMNS, "aspects": known, "items": items, "sounds": sounds.addresses}
    digest = _digest(content, key)
    remarks = {
        f"without speech in one system or both, {'asked on text alone' if TEXT in kinds else 'left out'}": silent,
        "with the same words from both systems; --questions speech would ask about voices alone": [
            pair.first.id for pair in chosen if TEXT in kinds and pair.first.text == pair.second.text
        ],
        "recordings that went beyond full scale, turned down as a whole": sounds.loud,
    }
    remarks = {remark: sorted(names) for remark, names in remarks.items() if names}
    return ListeningTest({"test": digest, **content}, Key(digest, systems, key), remarks, sounds.faults)


def _choose(
    pairs: Sequence[Pair], kinds: Sequence[str], number: int | None, sounds: _Sounds
) -> tuple[list[Pair], list[str]]:
    """The first pairs that something can be asked of, and the dialogues met whose replies are not both spoken."""
    chosen, silent = [], []
    for pair in pairs:
        if len(chosen) == number:
            break
        if SPEECH in kinds:
            pair = sounds.checked(pair)
            silent += [] if pair.is_spoken else [pair.first.id]
        if TEXT in kinds or pair.is_spoken:
            chosen.append(pair)
    return chosen, silent


def _digest(content: Mapping[str, object], key: Mapping[str, KeyItem]) -> str:
    whole = json.dumps([content, {name: vars(item) for name, item in key.items()}])
    # A letter in front, so that no spreadsheet takes it for a number.
    return "T" + hashlib.sha256(whole.encode()).hexdigest()[:12]


def _kinds(aspects: Iterable[str]) -> set[str]:
    return {ASPECTS[name].kind for name in aspects}


class _Sounds:
    """The sounds of a page, each held once: histories of one conversation share theirs."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.rates: list[int] = []
        self.faults: list[ES4RError] = []
        self.loud: list[str] = []
        self.places: dict[tuple, int | None] = {}

    def checked(self, pair: Pair) -> Pair:
        """A pair without the recordings that cannot be used."""
        return replace(pair, first=self._checked(pair.first), second=self._checked(pair.second))

    def _checked(self, reply: Reply) -> Reply:
        try:
            if reply.audio is not None:
                audio.decode(reply.audio)
                self.rates.append(audio.probe(reply.audio).sample_rate)
        except AudioError as fault:
            self.faults.append(fault)
            return replace(reply, audio=None)
        return reply

    def add_turn(self, turn: Turn) -> int | None:
        return None if turn.audio is None else self._add(turn.audio, None, turn.start, turn.stop)

    def add_reply(self, reply: Reply) -> int | None:
        """The place of a reply that was checked, at one sample rate with all others."""
        return self._add(reply.audio, one_rate(self.rates))

    def _add(self, path: Path, rate: int | None, start: float = 0.0, stop: float | None = None) -> int | None:
        """The place of a recording among the addresses; None where it cannot be used."""
        part = path, rate, start, stop
        if part not in self.places:
            try:
                address, peak = sound_address(*part)
            except AudioError as fault:
                self.faults.append(fault)
                self.places[part] = None
            else:
                self.places[part] = len(self.addresses)
                self.addresses.append(address)
                if peak > 1:
                    self.loud.append(str(path))
        return self.places[part]
