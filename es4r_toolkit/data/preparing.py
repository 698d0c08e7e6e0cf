"""Corpora as their owners publish them, to manifests: what every preparer does."""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from es4r_toolkit.data.records import FieldError
from es4r_toolkit.data.responses import make_folder, write_json, write_text
from es4r_toolkit.data.tables import SAMPLES
from es4r_toolkit.dialogue import LISTENER, SPEAKER
from es4r_toolkit.errors import ConfigError, ES4RError, require
from es4r_toolkit.hparams import compose, plain

logger = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
MARK, REJECTS = "prepared.json", "rejects.jsonl"
LISTENERS = ("replier", "second")
UNANSWERED = FieldError("turns", "hold nobody who answers anybody", "leave it: there is no reply to learn from")


@dataclass(frozen=True)
class Utterance:
    """What one person says, as a corpus has it.

    Attributes
    ----------
    name : str
        What tells it from the others of its conversation.
    person : str
        Who says it.
    text : str
        Empty where the corpus has none; then there is a fault.
    audio : Path or None
        Its recording.
    emotion : str or None
        Its label.
    fault : FieldError or None
        Why no history can hold it. With a text it can be a reply still.
    """

    name: str
    person: str
    text: str
    audio: Path | None = None
    emotion: str | None = None
    fault: FieldError | None = None


@dataclass(frozen=True)
class Sampling:
    """Which turns of a conversation are replies to learn from, and who is the listener: our rules, for every corpus.

    Attributes
    ----------
    listener : str
        ``replier``: every turn that follows another person's is a reply; who gives it is the listener of that sample,
        and all others are speakers, so a turn may be a speaker's in one sample and a listener's in the next.
        ``second``: who opens the conversation is the speaker throughout, and all others are listeners; a reply is
        their turn that follows the speaker's.
    samples : str
        ``every``: a sample for each reply, with the turns before it. ``last``: for the last reply.
    max_turns : int or None
        The newest turns that a history keeps; None is all of them.

    Raises
    ------
    ConfigError
        If a value breaks its rule.

    Example
    -------
    >>> said = [Utterance(str(place), person, "Yes.") for place, person in enumerate("ABBA")]
    >>> Sampling("replier").answers(said), Sampling("second").answers(said)
    ([1, 3], [1])
    """

    listener: str = "replier"
    samples: str = "every"
    max_turns: int | None = None

    def __post_init__(self) -> None:
        require(self.listener in LISTENERS, "listener", self.listener, f"must be {' or '.join(LISTENERS)}")
        require(self.samples in SAMPLES, "samples", self.samples, f"must be {' or '.join(SAMPLES)}")
        whole = self.max_turns is None or (type(self.max_turns) is int and self.max_turns > 0)
        require(whole, "max_turns", self.max_turns, "must be a whole number above 0, or null for all turns")

    def answers(self, utterances: Sequence[Utterance]) -> list[int]:
        """The places of the turns that become replies."""
        persons = [one.person for one in utterances]
        found = [
            place
            for place in range(1, len(persons))
            if persons[place] != persons[place - 1] and (self.listener == "replier" or persons[place - 1] == persons[0])
        ]
        return found if self.samples == "every" else found[-1:]

    def history(self, answer: int) -> range:
        """The places of the turns that go before a reply."""
        return range(0 if self.max_turns is None else max(0, answer - self.max_turns), answer)

    def role(self, utterances: Sequence[Utterance], place: int, answer: int) -> str:
        """Whose turn it is in the sample of a reply: ``speaker`` or ``listener``."""
        if self.listener == "replier":
            return LISTENER if utterances[place].person == utterances[answer].person else SPEAKER
        return SPEAKER if utterances[place].person == utterances[0].person else LISTENER


class Preparation:
    """One corpus on its way to manifests.

    Arguments
    ---------
    corpus : str
        Its name.
    manifests : str or Path
        Where ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl`` go; and ``rejects.jsonl``, where something is left
        out, and ``prepared.json``, which says that all is done, and with which settings.
    settings : mapping
        All that the manifests depend on; JSON ready.

    Attributes
    ----------
    samples : dict of str to list of dict
        Those of each split, so far.
    rejects : list of dict
        What is left out, so far: ``place, field, problem, mend``, and ``samples``, how many it cost, where it did.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> work = Preparation("Toy", folder.name, {"seed": 1})
    >>> said = [Utterance("0", "anna", "I failed.", Path("0.wav")), Utterance("1", "ben", "Oh no.")]
    >>> for split in SPLITS:
    ...     work.add(split, split, said, Sampling())
    >>> work.samples["train"][0]["response"]["utterance"]
    'Oh no.'
    >>> work.done
    False
    """

    def __init__(self, corpus: str, manifests: str | Path, settings: Mapping[str, Any]):
        self.corpus, self.target = corpus, Path(manifests)
        # As they are read back.
        self.settings = json.loads(json.dumps(settings))
        self.samples: dict[str, list[dict]] = {split: [] for split in SPLITS}
        self.rejects: list[dict[str, Any]] = []

    @property
    def done(self) -> bool:
        """Whether the manifests are there already, made with the same settings; says so where they are."""
        mark = self.target / MARK
        if not mark.is_file() or not all((self.target / f"{split}.jsonl").is_file() for split in SPLITS):
            return False
        try:
            same = json.loads(mark.read_text(encoding="utf-8"))["settings"] == self.settings
        except (ValueError, KeyError, TypeError):
            return False
        if same:
            print(f"{self.corpus}: manifests are in {self.target} already; delete {mark} to make them anew", flush=True)
        return same

    def leave_out(self, place: str, fault: FieldError, samples: int = 0) -> None:
        """Note what is not used, why, and how many samples that costs."""
        entry: dict[str, Any] = {"place": place, "field": fault.field, "problem": fault.problem, "mend": fault.mend}
        self.rejects.append(entry | ({"samples": samples} if samples else {}))

    def add(self, split: str, conversation: str, utterances: Sequence[Utterance], sampling: Sampling) -> None:
        """Make the samples of one conversation; a faulty utterance costs those that hold it, and no other."""
        answers = sampling.answers(utterances)
        lost: Counter[str] = Counter()
        for answer in answers:
            reply = utterances[answer]
            held = [utterances[place] for place in sampling.history(answer)] + ([] if reply.text else [reply])
            faulty = next((one for one in held if one.fault is not None), None)
            if faulty is not None:
                lost[faulty.name] += 1
                continue
            history = [
                _turn(utterances[place], place, sampling.role(utterances, place, answer))
                for place in sampling.history(answer)
            ]
            sample = {"conversation_id": conversation, "turn_id": reply.name, "dialogue_history": history}
            self.samples[split].append({**sample, "response": _turn(reply, answer, LISTENER)})
        for one in utterances:
            if one.fault is not None:
                self.leave_out(f"{conversation}, {one.name}", one.fault, lost[one.name])
        if not answers:
            self.leave_out(conversation, UNANSWERED)

    def write(self) -> None:
        """Write the manifests, what is left out, and that all is done.

        Raises
        ------
        ConfigError
            If a split has no sample.
        """
        make_folder(self.target)
        # An interruption from here on must not look like the end of an earlier run.
        (self.target / MARK).unlink(missing_ok=True)
        for split in SPLITS:
            _write_lines(self.target / f"{split}.jsonl", self.samples[split])
        (self.target / REJECTS).unlink(missing_ok=True)
        if self.rejects:
            _write_lines(self.target / REJECTS, self.rejects)
            place, field, problem = (self.rejects[0][key] for key in ("place", "field", "problem"))
            told = (len(self.rejects), self.target / REJECTS, place, field, problem)
            logger.warning("entries left out: %d, all in %s; the first: %s: %s %s", *told)
        counts = {split: len(self.samples[split]) for split in SPLITS}
        if 0 in counts.values():
            problem = f"made {counts} samples, and left {len(self.rejects)} entries out"
            mend = f"see {self.target / REJECTS}" if self.rejects else "take more conversations"
            raise ConfigError(self.corpus, problem, f"every split needs one: {mend}")
        write_json(self.target / MARK, {"settings": self.settings, "samples": counts, "rejected": len(self.rejects)})
        lost = sum(entry.get("samples", 0) for entry in self.rejects)
        cost = f" (samples lost: {lost})" if lost else ""
        print(
            f"{self.corpus}: {counts} samples, {len(self.rejects)} entries left out{cost}; "
            f"manifests are in {self.target}",
            flush=True,
        )


def draw(count: int, share: float, seed: int, argument: str = "valid_share") -> list[int]:
    """Places of a share of so many conversations, one at least, drawn by a seed.

    Raises
    ------
    ConfigError
        If the share is not between 0 and 1.

    Example
    -------
    >>> len(draw(40, 0.05, seed=42))
    2
    """
    if not 0 < share < 1:
        raise ConfigError(argument, f"is {share}", "must be between 0 and 1")
    return random.Random(seed).sample(range(count), min(count, max(1, round(share * count))))


def prepare_alone(prepare: Callable[..., None], hparams: Path, arguments: Sequence[str] | None = None) -> None:
    """The command line of a recipe's ``prepare.py``: that step of its train YAML, without the training.

    Arguments
    ---------
    prepare : callable
        Called with the section ``prepare``.
    hparams : Path
        The train YAML.
    arguments : sequence of str, optional
        Those of the command line.
    """
    parser = argparse.ArgumentParser(
        description=prepare.__doc__.split("\n")[0].replace("``", ""),
        epilog=f"example: python recipes/{hparams.parents[1].name}/prepare.py DATA --output MANIFESTS; "
        f"any key of {hparams.name} may be given as --key=value",
    )
    parser.add_argument("data", help="folder of the corpus, as its owners publish it")
    parser.add_argument("--output", help=f"where manifests go [as {hparams.name} says]")
    parser.add_argument("--hparams", type=Path, default=hparams, help="train YAML to go by [%(default)s]")
    given, rest = parser.parse_known_args(arguments)
    overrides: dict[str, Any] = {"data_folder": given.data}
    for one in rest:
        key, equals, value = one.removeprefix("--").partition("=")
        if not one.startswith("--") or not equals:
            parser.error(f"{one} is not --key=value")
        try:
            overrides[key] = YAML(typ="safe").load(value)
        except YAMLError:
            parser.error(f"{one}: the value is not YAML")
    try:
        values = plain(compose(given.hparams, overrides))["prepare"]
        prepare(**values | ({"manifests": given.output} if given.output else {}))
    except ES4RError as fault:
        raise SystemExit(f"error: {fault}") from None


def _turn(utterance: Utterance, index: int, role: str) -> dict[str, Any]:
    turn = {"index": index, "role": role, "utterance": utterance.text, "speaker_id": utterance.person}
    if utterance.audio is not None and utterance.fault is None:
        turn["audio_path"] = str(utterance.audio.resolve())
    if utterance.emotion is not None:
        turn["emotion"] = utterance.emotion
    return turn


def _write_lines(path: Path, lines: Sequence[Mapping]) -> None:
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
