"""AvaMERG as its owners publish it, to manifests: python recipes/AvaMERG/prepare.py DATA --output MANIFESTS

The corpus is a JSON file of conversations for each split and a folder of recordings. Each listener reply of a
conversation becomes a sample with the turns before it. The folder of samples of the paper's project page, which has
a manifest already, is taken too.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from es4r_toolkit.data.preparing import SPLITS, Preparation, draw
from es4r_toolkit.data.published import find, require_folder
from es4r_toolkit.data.records import FieldError, Record, place_of, read_records, refuse_broken_values
from es4r_toolkit.errors import ConfigError, ES4RError

logger = logging.getLogger(__name__)

# dia{conversation, five digits}utt{index from 0}_{profile}.wav, or without the profile.
RECORDING = re.compile(r"dia(?P<conversation>\d+)utt(?P<index>\d+)(?:_(?P<profile>\w+))?\.wav")
PROFILES = {"speaker": "speaker_profile", "listener": "listener_profile"}
SAMPLES = "dialogues.jsonl"
MEND = "take the JSON as it was published"
Recordings = Mapping[tuple[int, int], Mapping[str, Sequence[Path]]]


def prepare(
    data_folder: str,
    manifests: str,
    files: Mapping[str, str],
    valid_share: float,
    seed: int,
) -> None:
    """Write ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, and ``rejects.jsonl`` where something is left out.

    Returns at once where they are there, made with the same settings.

    Arguments
    ---------
    data_folder : str
        What was downloaded, unpacked; files are looked for in all of it.
    manifests : str
        Where the manifests go.
    files : mapping
        ``train`` and ``test``: the names of the JSON files.
    valid_share : float
        Of the training conversations, drawn by the seed: the corpus has no validation split (ours).
    seed : int

    Raises
    ------
    ConfigError
        If the folder holds neither those files nor a manifest of samples.
    """
    root = Path(data_folder)
    settings = {"data_folder": str(root.resolve()), "files": dict(files), "valid_share": valid_share, "seed": seed}
    work = Preparation("AvaMERG", manifests, settings)
    if work.done:
        return
    require_folder(root)
    found = {split: find(root, name) for split, name in files.items()}
    if all(found.values()):
        _published(root, found, valid_share, seed, work)
    elif (root / SAMPLES).is_file():
        _samples(root, seed, work)
    else:
        missing = " and ".join(name for split, name in files.items() if not found[split])
        raise ConfigError("data_folder", f"{root} holds no {missing}", "see recipes/AvaMERG/README.md, Get the corpus")
    work.write()


def _published(root: Path, found: Mapping[str, Path], valid_share: float, seed: int, work: Preparation) -> None:
    everywhere = sorted(root.rglob("*.wav"))
    recordings = {split: _index(root, everywhere, split) for split in found}
    conversations: dict[str, list[list[dict]]] = {}
    for split, path in found.items():
        conversations[split] = []
        for record in read_records(path):
            try:
                conversations[split].append(list(_samples_of(record, recordings[split], path.parent)))
            except FieldError as fault:
                work.leave_out(f"{path.name}, {place_of(path, record.line)}", fault)
    drawn = set(draw(len(conversations["train"]), valid_share, seed))
    for place, turns in enumerate(conversations["train"]):
        work.samples["valid" if place in drawn else "train"] += turns
    work.samples["test"] = [turn for turns in conversations["test"] for turn in turns]


def _samples_of(record: Record, recordings: Recordings, folder: Path) -> Iterator[dict]:
    """The samples of one conversation, one for each reply."""
    value = record.value
    if isinstance(value, FieldError):
        raise value
    if not isinstance(value, dict):
        raise FieldError("conversation", "is no object", MEND)
    refuse_broken_values(value)
    conversation = str(value.get("conversation_id", ""))
    if not conversation.isdigit():
        raise FieldError("conversation_id", f"is {conversation!r}", MEND)
    turns = value.get("turns")
    if not isinstance(turns, list) or not turns:
        raise FieldError("turns", "are missing", MEND)
    profiles = {role: str(_mapping(value.get(key), key).get("ID", "")) for role, key in PROFILES.items()}

    def recording(index: int, role: str) -> str:
        takes = recordings.get((int(conversation), index), {})
        profile = profiles.get(role, "")
        # Without the profile in its name, or with another where there is no doubt.
        paths = takes.get(profile) or takes.get("") or (next(iter(takes.values())) if len(takes) == 1 else [])
        if len(paths) > 1:
            problem = f"is in {paths[0].parent} and in {paths[1].parent}"
            raise FieldError(paths[0].name, problem, "leave the one that is meant")
        path = paths[0] if paths else folder / f"dia{int(conversation):05d}utt{index}_{profile}.wav"
        return str(path.resolve())

    for place, turn in enumerate(turns):
        field = f"turns[{place}]"
        if not isinstance(turn, dict) or not isinstance(turn.get("dialogue_history"), list):
            raise FieldError(f"{field}.dialogue_history", "is missing", MEND)
        history = []
        for index, one in enumerate(turn["dialogue_history"]):
            if not isinstance(one, dict):
                raise FieldError(f"{field}.dialogue_history[{index}]", "is no object", MEND)
            number, role = one.get("index", index), str(one.get("role", "")).lower()
            if type(number) is not int:
                raise FieldError(f"{field}.dialogue_history[{index}].index", f"is {number!r}", "write a whole number")
            history.append(
                {
                    "index": number,
                    "role": role,
                    "utterance": one.get("utterance"),
                    "audio_path": recording(number, role),
                }
            )
        sample = {"conversation_id": conversation, "turn_id": str(turn.get("turn_id", place))}
        sample["dialogue_history"] = history
        reply = turn.get("response")
        if reply is not None:
            text = reply.get("utterance") if isinstance(reply, dict) else reply
            number = max((one["index"] for one in history), default=-1) + 1
            sample["response"] = {"index": number, "role": "listener", "utterance": text}
            spoken = Path(recording(number, "listener"))
            if spoken.is_file():
                sample["response"]["audio_path"] = str(spoken)
        emotion = _mapping(turn.get("chain_of_empathy"), f"{field}.chain_of_empathy").get("speaker_emotion")
        if emotion:
            sample["speaker_emotion"] = emotion
        yield sample


def _samples(root: Path, seed: int, work: Preparation) -> None:
    """A folder of samples: one conversation to validate on, one to test on, the others to train on."""
    samples: dict[str, list[dict]] = defaultdict(list)
    for record in read_records(root / SAMPLES):
        try:
            sample = _with_recordings(record, root)
        except FieldError as fault:
            work.leave_out(f"{SAMPLES}, {place_of(SAMPLES, record.line)}", fault)
            continue
        samples[str(sample["conversation_id"])].append(sample)
    names = sorted(samples)
    if len(names) < len(SPLITS):
        raise ConfigError(root / SAMPLES, f"holds {len(names)} conversations", "three at least, one for each split")
    random.Random(seed).shuffle(names)
    split_of = {names[0]: "valid", names[1]: "test"}
    for name, own in samples.items():
        work.samples[split_of.get(name, "train")] += own
    logger.warning("%s: %d conversations to try the recipe on, split by themselves", root, len(names))


def _with_recordings(record: Record, root: Path) -> dict:
    """A sample with whole paths; what its turns say is checked where the manifest is read."""
    value = record.value
    if isinstance(value, FieldError):
        raise value
    if not isinstance(value, dict):
        raise FieldError("sample", "is no object", MEND)
    refuse_broken_values(value)
    if not isinstance(value.get("conversation_id"), str | int):
        raise FieldError("conversation_id", f"is {value.get('conversation_id')!r}", MEND)
    history = value.get("dialogue_history")
    if not isinstance(history, list):
        raise FieldError("dialogue_history", "is no list", MEND)
    turns = {f"dialogue_history[{place}]": turn for place, turn in enumerate(history)}
    turns |= {} if value.get("response") is None else {"response": value["response"]}
    for field, turn in turns.items():
        if not isinstance(turn, dict):
            raise FieldError(field, "is no object", MEND)
        if not isinstance(turn.get("audio_path", ""), str):
            raise FieldError(f"{field}.audio_path", f"is {turn['audio_path']!r}", MEND)
        if "audio_path" in turn:
            turn["audio_path"] = str((root / turn["audio_path"]).resolve())
    return value


def _mapping(value: object, field: str) -> Mapping:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FieldError(field, f"is {value!r}, no object", MEND)
    return value


def _index(root: Path, paths: Sequence[Path], split: str) -> Recordings:
    """Recordings by conversation and utterance, then by profile: where a name is used twice, those of the split."""
    index: dict[tuple[int, int], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        named = RECORDING.fullmatch(path.name)
        if named is not None:
            index[int(named["conversation"]), int(named["index"])][named["profile"] or ""].append(path)
    for takes in index.values():
        for profile, found in takes.items():
            own = [path for path in found if split in str(path.parent.relative_to(root))]
            if len(found) > 1 and own:
                takes[profile] = own
    return index


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="AvaMERG, as its owners publish it, to manifests.")
    parser.add_argument("data", help="folder of the unpacked corpus")
    parser.add_argument("--output", default="results/AvaMERG/manifests", help="where manifests go [%(default)s]")
    parser.add_argument("--train", default="train.json", help="name of the training JSON [%(default)s]")
    parser.add_argument("--test", default="test.json", help="name of the test JSON [%(default)s]")
    parser.add_argument("--valid-share", type=float, default=0.05, help="of training conversations [%(default)s]")
    parser.add_argument("--seed", type=int, default=42, help="of the validation split [%(default)s]")
    options = parser.parse_args()
    try:
        files = {"train": options.train, "test": options.test}
        prepare(options.data, options.output, files, options.valid_share, options.seed)
    except ES4RError as fault:
        sys.exit(f"error: {fault}")


if __name__ == "__main__":
    main()
