"""MELD as its owners publish it, to manifests: python recipes/MELD/prepare.py DATA --output MANIFESTS

Each turn that answers somebody becomes a sample with the turns before it. The clips are MP4, which is not read here:
their sound is looked for as WAV, and taken out of them where ffmpeg is on the PATH.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from es4r_toolkit.data.audio import AudioLimits
from es4r_toolkit.data.preparing import Preparation, Sampling, Utterance, prepare_alone
from es4r_toolkit.data.published import find, in_parallel, recording_fault, require_folder, text_of
from es4r_toolkit.data.records import FieldError
from es4r_toolkit.data.responses import make_folder
from es4r_toolkit.errors import ConfigError, DialogueError, require

# The table of each split and the folder of its clips, by the names they are published under.
PUBLISHED = {
    "train": ("train_sent_emo.csv", "train_splits"),
    "valid": ("dev_sent_emo.csv", "dev_splits_complete"),
    "test": ("test_sent_emo.csv", "output_repeated_splits_test"),
}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
HELP = "see recipes/MELD/README.md, Get the corpus"
MEND = "take the table as it was published"
MEND_CLIP = "download it again, or put its sound there as WAV; some clips of the release are broken"
SECONDS_A_CLIP = 120  # that ffmpeg may take; it needs less than one


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes
    ----------
    dialogue, turn : int
        Numbered anew in each split.
    text, person, emotion : str
    """

    dialogue: int
    turn: int
    text: str
    person: str
    emotion: str

    @property
    def clip(self) -> str:
        """The name of its clip, exactly: archives hold ._dia0_utt0.mp4 and final_videos_testdia0_utt0.mp4 too."""
        return f"dia{self.dialogue}_utt{self.turn}"


@dataclass(frozen=True)
class Clip:
    """Where the video of a clip is, which may be missing, and its sound, which may be still to make."""

    video: Path
    sound: Path


def prepare(
    data_folder: str,
    manifests: str,
    audio_folder: str,
    max_seconds: float,
    workers: int,
    listener: str,
    samples: str,
    max_turns: int | None,
) -> None:
    """Write ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``, and ``rejects.jsonl`` where something is left out.

    Returns at once where they are there, made with the same settings.

    Arguments
    ---------
    data_folder : str
        What was unpacked; tables and folders of clips are looked for in all of it.
    manifests : str
        Where the manifests go.
    audio_folder : str
        WAV files are looked for here, in folders of the names that the clips' have, and beside the clips; those that
        ffmpeg makes go here.
    max_seconds : float
        A longer clip was cut wrongly, and is left out.
    workers : int
        How many clips ffmpeg works on at once.
    listener, samples, max_turns
        As of ``Sampling``.

    Raises
    ------
    ConfigError
        If a table is missing, or there is neither a WAV file nor ffmpeg, or a value breaks its rule.
    """
    sampling = Sampling(listener, samples, max_turns)
    require(type(workers) is int and workers > 0, "workers", workers, "must be a whole number above 0")
    limits = AudioLimits(max_seconds=max_seconds)
    root, sounds = Path(data_folder), Path(audio_folder)
    settings = {"data_folder": str(root.resolve()), "audio_folder": str(sounds.resolve()), "max_seconds": max_seconds}
    work = Preparation("MELD", manifests, settings | vars(sampling))
    if work.done:
        return
    require_folder(root)
    tables = {split: find(root, table) for split, (table, _) in PUBLISHED.items()}
    if None in tables.values():
        missing = " and ".join(PUBLISHED[split][0] for split, path in tables.items() if path is None)
        raise ConfigError("data_folder", f"{root} holds no {missing}", HELP)
    for split, table in tables.items():
        folder = PUBLISHED[split][1]
        rows = sorted(_rows(table, work), key=lambda row: (row.dialogue, row.turn))
        clips = _clips(rows, _videos(root, folder, sounds), sounds / folder)
        broken = _take_out(list(clips.values()), max_seconds, workers, f"sound of {folder}")
        for dialogue, of_one in itertools.groupby(rows, key=lambda row: row.dialogue):
            utterances = [_utterance(row, clips[row], broken, limits) for row in of_one]
            work.add(split, f"{split}_dia{dialogue}", utterances, sampling)
    work.write()


def _videos(root: Path, folder: str, sounds: Path) -> Path:
    """The folder of a split's clips; where sound was put into folders of the same name, the one with clips."""
    found = [path for path in sorted(root.rglob(folder)) if path.resolve() != (sounds / folder).resolve()]
    return next((path for path in found if any(path.glob("dia*.mp4"))), found[0] if found else root / folder)


def _rows(table: Path, work: Preparation) -> Iterator[Row]:
    """The rows of a table that name a dialogue, a turn and who speaks, each turn once."""
    # Some apostrophes are those of Windows-1252, taken for Latin-1.
    rows = csv.DictReader(io.StringIO(text_of(table), newline=""))
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise ConfigError(table, f"has no column {', '.join(missing)}", MEND)
    try:
        numbered = [(rows.line_num, row) for row in rows]
    except csv.Error as fault:
        raise DialogueError(table, f"is no table from line {rows.line_num} on ({fault})", MEND) from None
    seen: set[tuple[int, int]] = set()
    for line, row in numbered:
        place = f"{table.name}, line {line}"
        if None in row or None in row.values():
            work.leave_out(place, FieldError("row", f"has not {len(rows.fieldnames)} fields", MEND))
            continue
        try:
            turn = int(row["Dialogue_ID"]), int(row["Utterance_ID"])
        except ValueError:
            problem = f"are {row['Dialogue_ID']!r} and {row['Utterance_ID']!r}"
            work.leave_out(place, FieldError("Dialogue_ID, Utterance_ID", problem, MEND))
            continue
        if turn in seen:
            work.leave_out(place, FieldError("Utterance_ID", f"{turn[1]} of dialogue {turn[0]} stands twice", MEND))
            continue
        if not row["Speaker"].strip():
            work.leave_out(place, FieldError("Speaker", "is empty", MEND))
            continue
        seen.add(turn)
        text = " ".join(row["Utterance"].split())
        yield Row(*turn, text, row["Speaker"].strip(), row["Emotion"].strip())


def _clips(rows: list[Row], videos: Path, sounds: Path) -> dict[Row, Clip]:
    clips = {}
    for row in rows:
        beside, apart = videos / f"{row.clip}.wav", sounds / f"{row.clip}.wav"
        clips[row] = Clip(videos / f"{row.clip}.mp4", beside if beside.is_file() else apart)
    return clips


def _utterance(row: Row, clip: Clip, broken: Mapping[Path, FieldError], limits: AudioLimits) -> Utterance:
    fault = broken.get(clip.sound) or recording_fault(clip.sound, limits)
    if not row.text:
        fault = FieldError("Utterance", "is empty", MEND)
    return Utterance(f"utt{row.turn}", row.person, row.text, clip.sound, row.emotion or None, fault)


def _take_out(clips: list[Clip], max_seconds: float, workers: int, description: str) -> dict[Path, FieldError]:
    """Make the WAV files that are missing, where that can be; gives why for those that could not be made."""
    waiting = [clip for clip in clips if not clip.sound.is_file() and clip.video.is_file()]
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        if clips and not any(clip.sound.is_file() for clip in clips):
            problem = f"{clips[0].sound} does not exist, nor any other, and there is no ffmpeg on the PATH to make it"
            raise ConfigError("audio_folder", problem, HELP)
        return {clip.sound: FieldError(clip.video.name, "has no WAV file yet", HELP) for clip in waiting}
    if waiting:
        make_folder(waiting[0].sound.parent)

    def take_out(clip: Clip) -> FieldError | None:
        beside = clip.sound.with_name(f".{clip.sound.stem}.{os.getpid()}.part.wav")
        # One second more than is allowed, so that a clip that is too long is found to be.
        wanted = ["-vn", "-ac", "1", "-ar", "16000", "-t", str(max_seconds + 1), str(beside)]
        try:
            subprocess.run(
                [ffmpeg, "-nostdin", "-v", "error", "-y", "-i", str(clip.video), *wanted],
                check=True,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS_A_CLIP,
            )
            os.replace(beside, clip.sound)
        except subprocess.TimeoutExpired:
            return FieldError(clip.video.name, f"takes ffmpeg more than {SECONDS_A_CLIP} s", MEND_CLIP)
        except (subprocess.CalledProcessError, OSError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            return FieldError(clip.video.name, f"gives no sound ({said[-1][:200] if said else 'no reason'})", MEND_CLIP)
        finally:
            beside.unlink(missing_ok=True)
        return None

    faults = list(in_parallel(take_out, waiting, workers, description, "clip"))
    return {clip.sound: fault for clip, fault in zip(waiting, faults) if fault is not None}


if __name__ == "__main__":
    prepare_alone(prepare, Path(__file__).parent / "hparams" / "train.yaml")
