"""DailyTalk as its owners publish it, to manifests: python recipes/DailyTalk/prepare.py DATA --output MANIFESTS

Each turn that answers somebody becomes a sample with the turns before it. Validation and test dialogues are drawn:
the corpus has no splits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from es4r_toolkit.data.preparing import Preparation, Sampling, Utterance, draw, prepare_alone
from es4r_toolkit.data.published import find, recording_fault, require_folder, text_of
from es4r_toolkit.data.records import FieldError, read_json, refuse_broken_values
from es4r_toolkit.errors import ConfigError

# data/12/0_1_d12.wav and .txt: turn 0 of dialogue 12, by speaker 1.
NAME = re.compile(r"(?P<turn>\d+)_(?P<person>\d+)_d(?P<dialogue>\d+)")
METADATA = "metadata.json"
HELP = "see recipes/DailyTalk/README.md, Get the corpus"
MEND = "take the corpus as it was published"


def prepare(
    data_folder: str,
    manifests: str,
    test_share: float,
    valid_share: float,
    seed: int,
    listener: str,
    samples: str,
    max_turns: int | None,
) -> None:
    """Write ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, and ``rejects.jsonl`` where something is left out.

    Returns at once where they are there, made with the same settings.

    Arguments
    ---------
    data_folder : str
        What was unpacked: ``metadata.json`` stands in it, or in a folder in it, and ``data`` beside that.
    manifests : str
        Where the manifests go.
    test_share, valid_share : float
        Of the dialogues, and of the others then, drawn by the seed.
    seed : int
    listener, samples, max_turns
        As of ``Sampling``.

    Raises
    ------
    ConfigError
        If the folder holds no corpus, or a value breaks its rule.
    """
    sampling = Sampling(listener, samples, max_turns)
    root = Path(data_folder)
    settings = {"data_folder": str(root.resolve()), "test_share": test_share, "valid_share": valid_share, "seed": seed}
    work = Preparation("DailyTalk", manifests, settings | vars(sampling))
    if work.done:
        return
    require_folder(root)
    metadata = find(root, METADATA)
    if metadata is None or not (metadata.parent / "data").is_dir():
        raise ConfigError("data_folder", f"{root} holds no {METADATA} with a folder data beside it", HELP)
    dialogues = read_json(metadata, text_of(metadata))
    if not isinstance(dialogues, dict) or not dialogues:
        raise ConfigError(metadata, "holds no object of dialogues", MEND)
    names = sorted(dialogues, key=lambda name: (len(name), name))
    split_of = _splits(names, test_share, valid_share, seed)
    for name in tqdm(names, "DailyTalk", unit="dialogue", disable=None):
        folder = metadata.parent / "data" / name
        try:
            utterances = _utterances(name, dialogues[name], folder, work)
        except FieldError as fault:
            work.leave_out(f"{METADATA}, dialogue {name}", fault)
            continue
        work.add(split_of[name], f"d{name}", utterances, sampling)
    work.write()


def _splits(names: list[str], test_share: float, valid_share: float, seed: int) -> dict[str, str]:
    tested = {names[place] for place in draw(len(names), test_share, seed, "test_share")}
    others = [name for name in names if name not in tested]
    validated = {others[place] for place in draw(len(others), valid_share, seed)}
    return {name: "test" if name in tested else "valid" if name in validated else "train" for name in names}


def _utterances(name: str, described: object, folder: Path, work: Preparation) -> list[Utterance]:
    """The utterances of a dialogue, as the metadata number them."""
    if not isinstance(described, dict) or not described:
        raise FieldError("dialogue", "is no object of utterances", MEND)
    refuse_broken_values(described)
    files = _files(name, folder, work)
    utterances = []
    for key in sorted(described, key=lambda key: (len(key), key)):
        if not isinstance(described[key], dict):
            raise FieldError(f"utterance {key}", "is no object", MEND)
        if key not in files:
            # Who speaks stands in the names of the files alone, and with it who answers whom.
            raise FieldError(f"{name}/{key}_*_d{name}.wav", "does not exist, nor its .txt", MEND)
        utterances.append(_utterance(key, described[key], files.pop(key)))
    for key, file in files.items():
        work.leave_out(f"d{name}, {key}", FieldError(file.name, f"is of no utterance of {METADATA}", MEND))
    return utterances


def _files(name: str, folder: Path, work: Preparation) -> dict[str, Path]:
    """What the files of each turn of a dialogue are called, with the extension .wav."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("[!.]*")):
        if path.suffix not in (".wav", ".txt"):
            continue
        named, recording = NAME.fullmatch(path.stem), path.with_suffix(".wav")
        if named is None or named["dialogue"] != name:
            work.leave_out(f"d{name}", FieldError(path.name, f"is no file of dialogue {name}", MEND))
        elif found.setdefault(named["turn"], recording) != recording:
            problem = f"and {found[named['turn']].name} are both turn {named['turn']}"
            raise FieldError(recording.name, problem, "leave the one that is meant")
    return found


def _utterance(key: str, described: Mapping, recording: Path) -> Utterance:
    person, written = NAME.fullmatch(recording.stem)["person"], recording.with_suffix(".txt")
    text = " ".join(text_of(written).split()) if written.is_file() else ""
    if not text:
        problem = "is empty" if written.is_file() else "does not exist"
        return Utterance(key, person, "", fault=FieldError(written.name, problem, MEND))
    emotion = described.get("emotion")
    if emotion is not None and not (isinstance(emotion, str) and emotion.strip()):
        return Utterance(key, person, text, fault=FieldError("emotion", f"is {emotion!r}", MEND))
    return Utterance(key, person, text, recording, emotion, recording_fault(recording))


if __name__ == "__main__":
    prepare_alone(prepare, Path(__file__).parent / "hparams" / "train.yaml")
