"""A table or manifest of your own to one manifest a split, what cannot be used named and left out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from es4r_toolkit.data.cleaning import moved
from es4r_toolkit.data.inspection import inspect
from es4r_toolkit.data.manifest import ManifestReport, read_manifest
from es4r_toolkit.data.preparing import SPLITS, Preparation, draw, prepare_alone
from es4r_toolkit.data.records import FieldError, place_of
from es4r_toolkit.data.tables import TableOptions
from es4r_toolkit.dialogue import Dialogue
from es4r_toolkit.errors import ConfigError

GROUPS = ("dialogue", "speaker")


def prepare(
    corpus: str,
    manifests: str,
    table: Mapping[str, Any],
    need_text: bool,
    split_by: str,
    valid_share: float,
    test_share: float,
    seed: int,
) -> None:
    """Write ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, and ``rejects.jsonl`` where something is left out.

    Returns at once where they are there, made from the same table with the same settings.

    Arguments
    ---------
    corpus : str
        The table or manifest; recordings are found from its folder.
    manifests : str
        Where the manifests go.
    table : mapping
        ``columns``, ``roles`` and ``samples`` of a table, as docs/data.md says.
    need_text : bool
        Whether a turn without a transcript is left out.
    split_by : str
        Where the corpus has no column ``split``: draw whole dialogues (``dialogue``), or all dialogues of a speaker
        (``speaker``), so that the test is of people whom training never hears.
    valid_share, test_share : float
        Of those.
    seed : int

    Raises
    ------
    ConfigError, DialogueError
        If the corpus cannot be read, or a value breaks its rule.
    """
    source = Path(corpus)
    if not source.is_file():
        raise ConfigError("corpus", f"{source} is no file", "give your table: --corpus=TABLE")
    settings = {
        "corpus": str(source.resolve()),
        "content": hashlib.blake2b(source.read_bytes(), digest_size=16).hexdigest(),
        "table": dict(table),
        "need_text": need_text,
        "shares": [split_by, valid_share, test_share, seed],
    }
    work = Preparation(source.name, manifests, settings)
    if work.done:
        return
    bar = partial(tqdm, disable=None)
    options = {"need_text": need_text, "decode": True, "workers": 0, "progress": bar}
    report = read_manifest(source, need_response=True, table=TableOptions(**table), **options)
    for one in report.rejected:
        place = f"{source.name}, {place_of(source, one.line)} ({one.item})"
        work.leave_out(place, FieldError(one.field, one.problem, one.mend))
    splits = _own_splits(report.dialogues) or _drawn(report, split_by, valid_share, test_share, seed)
    for split in SPLITS:
        good = [pair for pair in zip(report.dialogues, report.records) if splits[pair[0].id] == split]
        work.samples[split] = [record | {"split": split} for record in moved(good, source.parent, work.target)]
    work.write()
    for remark in inspect({"corpus": report}):
        print(f"worth a look: {remark.kind}: {remark.item}: {remark.seen}; {remark.mend}")


def _own_splits(dialogues: Sequence[Dialogue]) -> dict[str, str]:
    """The split of each dialogue, where the corpus names them."""
    named = {one.id: {"dev": "valid", "validation": "valid"}.get(one.split, one.split) for one in dialogues}
    strange = {name: split for name, split in named.items() if split not in (*SPLITS, None)}
    if strange:
        name, split = next(iter(strange.items()))
        raise ConfigError("split", f"is {split!r} of {name}", f"write {', '.join(SPLITS)} in that column")
    unnamed = [name for name, split in named.items() if split is None]
    if unnamed and len(unnamed) < len(named):
        raise ConfigError("split", f"is empty of {unnamed[0]}", "fill the column, or leave it out")
    return {} if unnamed else named


def _drawn(report: ManifestReport, split_by: str, valid_share: float, test_share: float, seed: int) -> dict[str, str]:
    if split_by not in GROUPS:
        raise ConfigError("split_by", f"is {split_by!r}", f"must be {' or '.join(GROUPS)}")
    group_of = {
        one.id: str(record.value["conversation_id"]) if split_by == "dialogue" else _speaker(one)
        for one, record in zip(report.dialogues, report.records)
    }
    groups = sorted(set(group_of.values()))
    if len(groups) < len(SPLITS):
        raise ConfigError("corpus", f"has {len(groups)} different {split_by}s", "three at least, one for each split")
    tested = {groups[place] for place in draw(len(groups), test_share, seed, "test_share")}
    left = [group for group in groups if group not in tested]
    validated = {left[place] for place in draw(len(left), valid_share, seed, "valid_share")}
    return {
        name: "test" if group in tested else "valid" if group in validated else "train"
        for name, group in group_of.items()
    }


def _speaker(dialogue: Dialogue) -> str:
    name = next(turn.speaker_id for turn in dialogue.history if turn.is_speaker)
    if name is None:
        raise ConfigError("split_by", f"is speaker, and {dialogue.id} does not say who speaks", "fill in speaker_id")
    return name


if __name__ == "__main__":
    prepare_alone(prepare, Path(__file__).parent / "hparams" / "train.yaml")
