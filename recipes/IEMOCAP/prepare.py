"""IEMOCAP as its owners publish it, to manifests: python recipes/IEMOCAP/prepare.py DATA --output MANIFESTS

Each turn that answers somebody becomes a sample with the turns before it. One of the five sessions, with its two
actors, is the test split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from es4r_toolkit.data.preparing import Preparation, Sampling, Utterance, draw, prepare_alone
from es4r_toolkit.data.published import find, recording_fault, require_folder, text_of
from es4r_toolkit.data.records import FieldError
from es4r_toolkit.errors import ConfigError, require

SESSIONS = range(1, 6)
# Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
LINE = re.compile(r"(?P<name>Ses\S+)\s+\[(?P<start>\d+(\.\d+)?)-\d+(\.\d+)?\]:(?P<text>.*)")
# XX stands where a number should: an aside that was written down, but neither cut out nor labelled.
NAME = re.compile(r"Ses0\d[FM]_\w+_(?P<person>[FM])(\d+|XX\d*)")
# [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
LABEL = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(?P<name>Ses\S+)\s+(?P<code>\w+)\b")
MEND = "take the release as it was published"
ASIDE = "leave it: it was neither cut out nor labelled"


def prepare(
    data_folder: str,
    manifests: str,
    fold: int,
    valid_share: float,
    seed: int,
    emotions: Mapping[str, str],
    listener: str,
    samples: str,
    max_turns: int | None,
) -> None:
    """Write ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, and ``rejects.jsonl`` where something is left out.

    Returns at once where they are there, made with the same settings.

    Arguments
    ---------
    data_folder : str
        What was unpacked: ``Session1`` to ``Session5`` stand in it, or in a folder in it.
    manifests : str
        Where the manifests go.
    fold : int
        The session to test on, 1 to 5.
    valid_share : float
        Of the dialogues of the other sessions, drawn by the seed.
    seed : int
    emotions : mapping
        The release's code of an emotion -> the label of the turn; a code that is not named gives none.
    listener, samples, max_turns
        As of ``Sampling``.

    Raises
    ------
    ConfigError
        If a session is missing, or a value breaks its rule.
    """
    sampling = Sampling(listener, samples, max_turns)
    require(fold in SESSIONS, "fold", fold, "must be the session to test on, 1 to 5")
    root = Path(data_folder)
    settings = {"data_folder": str(root.resolve()), "fold": fold, "valid_share": valid_share, "seed": seed}
    settings |= {"emotions": dict(emotions), **vars(sampling)}
    work = Preparation("IEMOCAP", manifests, settings)
    if work.done:
        return
    require_folder(root)
    transcripts = {session: _transcripts(root, session) for session in SESSIONS}
    tested = {path.stem for path in transcripts[fold]}
    others = [path.stem for session in SESSIONS if session != fold for path in transcripts[session]]
    validated = {others[place] for place in draw(len(others), valid_share, seed)}
    for path in tqdm([path for paths in transcripts.values() for path in paths], "IEMOCAP", disable=None):
        split = "test" if path.stem in tested else "valid" if path.stem in validated else "train"
        work.add(split, path.stem, list(_utterances(path, emotions, work)), sampling)
    work.write()


def _transcripts(root: Path, session: int) -> list[Path]:
    """The transcripts of a session, one for each dialogue."""
    folder = find(root, f"Session{session}")
    # The archive was made on a Mac, and holds a ._Ses... beside some.
    found = sorted((folder / "dialog" / "transcriptions").glob("Ses*.txt")) if folder else []
    if not found:
        problem = f"{root} holds no Session{session}/dialog/transcriptions/Ses*.txt"
        raise ConfigError("data_folder", problem, "see recipes/IEMOCAP/README.md, Get the corpus")
    return found


def _utterances(transcript: Path, emotions: Mapping[str, str], work: Preparation) -> Iterator[Utterance]:
    """The utterances of a dialogue in the order in which they begin."""
    session = transcript.parents[2]
    recordings = session / "sentences" / "wav" / transcript.stem
    labels = _labels(session / "dialog" / "EmoEvaluation" / transcript.name, work)
    begun: dict[str, tuple[float, Utterance]] = {}
    for number, line in enumerate(text_of(transcript).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{transcript.name}, line {number}"
        written = LINE.fullmatch(line.strip())
        named = NAME.fullmatch(written["name"]) if written else None
        if written is None or named is None:
            shown = f"is {line.strip()[:60]!r}, which names no utterance and time"
            work.leave_out(place, FieldError("line", shown, ASIDE))
            continue
        name, text = written["name"], " ".join(written["text"].split())
        recording = recordings / f"{name}.wav"
        if "XX" in name and not recording.is_file():
            work.leave_out(place, FieldError(name, "has no recording of its own", ASIDE))
            continue
        if name in begun:
            work.leave_out(place, FieldError(name, "is written down twice", MEND))
            continue
        fault = recording_fault(recording) if text else FieldError(name, "has no words", MEND)
        person = f"{name[:5]}_{named['person']}"
        emotion = emotions.get(labels.get(name, ""))
        begun[name] = (
            float(written["start"]),
            Utterance(name.removeprefix(f"{transcript.stem}_"), person, text, recording, emotion, fault),
        )
    # Sorting is stable: of two that begin together, the one that was written first.
    yield from (utterance for _, utterance in sorted(begun.values(), key=lambda one: one[0]))


def _labels(path: Path, work: Preparation) -> dict[str, str]:
    """The code that most annotators gave each utterance of a dialogue."""
    if not path.is_file():
        work.leave_out(f"EmoEvaluation/{path.name}", FieldError("emotion", "has no file of labels", MEND))
        return {}
    found = (LABEL.match(line) for line in text_of(path).splitlines())
    return {label["name"]: label["code"] for label in found if label is not None}


if __name__ == "__main__":
    prepare_alone(prepare, Path(__file__).parent / "hparams" / "train.yaml")
