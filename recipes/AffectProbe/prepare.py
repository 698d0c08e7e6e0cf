"""Make the AffectProbe corpus: spoken dialogues whose text does not say how the speaker feels.

Each dialogue asks for a reply with three slots. *affect* is heard in the last speaker turn, *trend* (better, same or
worse) from the first to the last speaker turn, *topic* is read in the text. Everything is spoken by espeak-ng on the
spot; what is said and how stands in hparams/corpus.yaml. The same seed gives the same bytes, whatever the number of
workers.

Example
-------
python recipes/AffectProbe/prepare.py --data_folder results/AffectProbe/data
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import shutil
import sys
import tempfile
import time
import wave
import zlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from corpus import (
    CORPUS,
    SPLITS,
    affect_from_parameters,
    chance,
    draw_labels,
    fingerprint,
    key_phrases,
    plan_dialogue,
    read_corpus,
    reply_text,
    trend_from_last_affect,
)
from scipy.signal import firwin, lfilter, resample_poly
from tqdm import tqdm

from es4r_toolkit.backends.espeak import EspeakSynthesizer
from es4r_toolkit.data.audio import load
from es4r_toolkit.errors import AudioError, ConfigError, ES4RError, require

SIZES = {"train": 1300, "valid": 100, "test": 200}
COMPLETION_MARK = "corpus.json"
OUTPUTS = (COMPLETION_MARK, "slots.json", *(f"{split}.jsonl" for split in SPLITS), "wav")
FORMAT = 2  # raise when this script writes other bytes for the same settings
# At full volume several voices clip inside espeak-ng, out of reach of any later gain.
VOLUME = 50
SILENCE = 0.003  # of full scale; espeak-ng's pauses are digital silence


def prepare(
    data_folder: str | Path,
    corpus: str | Path = CORPUS,
    level: str = "standard",
    fold: int = 0,
    seed: int = 1234,
    sizes: Mapping[str, int] = SIZES,
    workers: int = 2,
    progress: bool = True,
) -> dict:
    """Speak the corpus into a folder, unless it is there already.

    Arguments
    ---------
    data_folder : path
        Gets train.jsonl, valid.jsonl, test.jsonl, wav/, slots.json and, when
        all is complete, corpus.json. Other files in it are left alone.
    corpus : path
        The YAML file of affects, voices and sentences, or of recordings.
    level : str
        How hard the affects are to tell apart, one of the file's levels; recordings have none.
    fold : int
        Whose recordings are the test split; espeak-ng's voices have no folds.
    seed : int
        Not negative.
    sizes : mapping of str to int
        Dialogues of each split.
    workers : int
        Processes that speak; they change nothing but the time taken.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    dict
        What corpus.json holds, and ``made``: whether it had to be made.

    Raises
    ------
    ConfigError
        If a setting or the YAML file breaks a rule, or the folder holds something else.
    BackendError
        If espeak-ng is missing or fails.
    """
    _check_arguments(seed, sizes, workers)
    config = read_corpus(corpus, level, fold)
    folder = Path(data_folder)
    settings = {"format": FORMAT, "corpus_sha256": fingerprint(config), "level": level, "fold": fold, "seed": seed}
    settings["sizes"] = {split: sizes[split] for split in SPLITS}
    found = _read_mark(folder)
    if found is not None and found["settings"] == settings:
        return {**found, "made": False}
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-building-", dir=folder.parent))
    try:
        summary = {"settings": settings, **_build(building, config, seed, sizes, workers, progress)}
        (building / COMPLETION_MARK).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        _move_into_place(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return {**summary, "made": True}


# ---------------------------------------------------------------------------------------------------------------------
# Speech


def speak_dialogue(
    espeak: EspeakSynthesizer | None, turns: list[dict], recording: dict, rng: np.random.Generator
) -> tuple[list[np.ndarray], bool]:
    """Speak the turns, or take their clips, as one recording.

    Returns
    -------
    waveforms : list of int16 array (samples,)
    scaled : bool
        Whether the dialogue had to be made quieter so as not to clip.
    """
    spoken = []
    for turn in turns:
        if "wav" in turn:
            spoken.append(load(turn["wav"], recording["sample_rate"]).double().numpy())
            continue
        parameters = {name: turn[name] for name in ("voice", "rate", "pitch", "pitch_range", "word_gap")}
        samples, rate = espeak.speak(turn["text"], volume=VOLUME, **parameters)
        speech = _resample(_trim(samples / 32768, turn["text"]), rate, recording["sample_rate"])
        spoken.append(speech * 10 ** (turn["level"] / 20))
    return record(spoken, recording, rng)


def record(
    spoken: list[np.ndarray], recording: Mapping[str, object], rng: np.random.Generator
) -> tuple[list[np.ndarray], bool]:
    """Put the turns of a dialogue on one recording: one loudness, one gain, one noise.

    Every dialogue is brought to the same mean power before the gain is drawn, so that how loud the whole is tells
    nothing of how its turns were spoken; only one turn against another does.

    Returns
    -------
    waveforms : list of int16 array (samples,)
    scaled : bool
        Whether the dialogue had to be made quieter so as not to clip.
    """
    whole = math.sqrt(np.mean(np.concatenate(spoken) ** 2))
    waveforms = [speech / whole for speech in spoken]
    noise_level = 10 ** (-rng.uniform(*recording["snr"]) / 20)
    pole = rng.uniform(*recording["noise_colour"])
    gain = 10 ** ((recording["loudness"] + rng.uniform(*recording["gain"])) / 20)
    for position, speech in enumerate(waveforms):
        room = (np.array([rng.uniform(*recording["lead"]) for _ in range(2)]) * recording["sample_rate"]).astype(int)
        padded = np.pad(speech, room)
        hiss = lfilter([math.sqrt(1 - pole**2)], [1, -pole], rng.standard_normal(len(padded)))
        waveforms[position] = gain * (padded + noise_level * hiss)
    peak = max(np.abs(waveform).max() for waveform in waveforms)
    scale = 32767 * min(1.0, 0.99 / peak)
    return [np.round(scale * waveform).astype(np.int16) for waveform in waveforms], bool(peak > 0.99)


def _trim(samples: np.ndarray, text: str) -> np.ndarray:
    loud = np.flatnonzero(np.abs(samples) > SILENCE)
    if len(loud) == 0:
        raise AudioError(f"sentence {text!r}", "was spoken as silence", "word it otherwise")
    return samples[loud[0] : loud[-1] + 1]


def _resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    divisor = math.gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    return resample_poly(samples, up, down, window=_resampling_filter(max(up, down)))


@functools.cache
def _resampling_filter(factor: int) -> np.ndarray:
    return firwin(20 * factor + 1, 1 / factor, window=("kaiser", 5.0))


# ---------------------------------------------------------------------------------------------------------------------
# Files


def _build(
    folder: Path, config: dict, seed: int, sizes: Mapping[str, int], workers: int, progress: bool
) -> dict[str, object]:
    started = time.monotonic()
    labels = {split: draw_labels(config, split, sizes[split], seed) for split in SPLITS}
    work = [(split, index, slots) for split in SPLITS for index, slots in enumerate(labels[split])]
    recorded = "pools" in config
    voices = [None if recorded else EspeakSynthesizer() for _ in range(workers)]
    free: SimpleQueue[EspeakSynthesizer | None] = SimpleQueue()
    for split in SPLITS:
        (folder / "wav" / split).mkdir(parents=True)

    def make(item: tuple[str, int, dict[str, str]]) -> dict:
        espeak = free.get()
        try:
            return _make_dialogue(folder, config, seed, espeak, *item)
        finally:
            free.put(espeak)

    # Threads are enough: speaking happens in the synthesizers' own processes.
    pool = ThreadPoolExecutor(workers)
    try:
        for espeak in voices:
            free.put(espeak)
        bar = tqdm(pool.map(make, work), total=len(work), unit="dialogue", desc="AffectProbe", disable=not progress)
        dialogues = list(bar)
        source = _source(config, voices)
    finally:
        pool.shutdown(cancel_futures=True)
        for espeak in filter(None, voices):
            espeak.close()
    for split in SPLITS:
        lines = (json.dumps(d["line"], ensure_ascii=False) for d, item in zip(dialogues, work) if item[0] == split)
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "slots.json").write_text(json.dumps(key_phrases(config), indent=2) + "\n", encoding="utf-8")
    seconds = Counter()
    for dialogue, (split, _, _) in zip(dialogues, work):
        seconds[split] += dialogue["seconds"]
    return {
        "dialogues": {split: sizes[split] for split in SPLITS},
        "turns": {
            s: sum(len(d["line"]["dialogue_history"]) for d, i in zip(dialogues, work) if i[0] == s) for s in SPLITS
        },
        "seconds_of_audio": {split: round(seconds[split], 1) for split in SPLITS},
        "dialogues_made_quieter": sum(dialogue["scaled"] for dialogue in dialogues),
        "chance": chance(config, labels["test"]),
        "trend_from_last_affect": round(trend_from_last_affect(config), 4),
        **source,
        "seconds_taken": round(time.monotonic() - started, 1),
    }


def _source(config: Mapping, voices: list[EspeakSynthesizer | None]) -> dict[str, object]:
    """Who spoke, for corpus.json."""
    if voices[0] is not None:
        known = affect_from_parameters(config)
        return {
            "affect_from_parameters": known,
            "espeak_ng": voices[0].version,
            "espeakng_loader": metadata.version("espeakng_loader"),
        }
    for problem in config["problems"]:
        tqdm.write(f"left out: {problem}", file=sys.stderr)
    numbers = {split: sum(map(len, pool.clips.values())) for split, pool in config["pools"].items()}
    speakers = {split: pool.speakers for split, pool in config["pools"].items()}
    return {"clips": numbers, "speakers": speakers, "clips_left_out": len(config["problems"])}


def _make_dialogue(
    folder: Path, config: dict, seed: int, espeak: EspeakSynthesizer, split: str, index: int, slots: dict[str, str]
) -> dict:
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    turns = plan_dialogue(config, split, slots, rng)
    return write_dialogue(folder, config, espeak, split, index, slots, turns, rng)


def write_dialogue(
    folder: Path,
    config: Mapping,
    espeak: EspeakSynthesizer | None,
    split: str,
    index: int,
    slots: Mapping[str, str],
    turns: list[dict],
    rng: np.random.Generator,
) -> dict:
    """Write the recordings of a dialogue under ``wav/<split>``, which is there, and word its reply.

    Returns
    -------
    dict
        ``line`` of the manifest, ``seconds`` of audio, and ``scaled``: whether it had to be made quieter.
    """
    reply = reply_text(config, slots, rng)
    waveforms, scaled = speak_dialogue(espeak, turns, config["recording"], rng)
    history = []
    for position, (turn, samples) in enumerate(zip(turns, waveforms)):
        path = f"wav/{split}/{index:05d}_{position}.wav"
        with wave.open(str(folder / path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(config["recording"]["sample_rate"])
            file.writeframes(samples.astype("<i2").tobytes())
        history.append(
            {
                "index": position,
                "role": turn["role"],
                "utterance": turn["text"],
                "audio_path": path,
                "emotion": turn["emotion"],
            }
        )
    line = {
        "conversation_id": f"{split}-{index:05d}",
        "turn_id": len(turns) // 2,
        "dialogue_history": history,
        "response": {"index": len(turns), "role": "listener", "utterance": reply},
        "last_turn": True,
        "slots": dict(slots),
    }
    return {"line": line, "scaled": scaled, "seconds": sum(map(len, waveforms)) / config["recording"]["sample_rate"]}


def _read_mark(folder: Path) -> dict | None:
    path = folder / COMPLETION_MARK
    if not path.exists():
        held = [name for name in OUTPUTS if (folder / name).exists()]
        if held:
            raise ConfigError(folder, f"holds {held} but no {COMPLETION_MARK}", "empty it or name another folder")
        return None
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
        complete = bool(mark["settings"]) and all((folder / name).exists() for name in OUTPUTS)
        return mark if complete else None
    except (ValueError, TypeError, KeyError) as error:
        problem = "was not written by this script"
        raise ConfigError(path, problem, "empty the folder or name another") from error


def _move_into_place(building: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # The completion mark leaves first and arrives last, so that an interrupted move never looks complete.
    for name in OUTPUTS:
        old = folder / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for name in reversed(OUTPUTS):
        (building / name).replace(folder / name)


def _check_arguments(seed: int, sizes: Mapping[str, int], workers: int) -> None:
    require(isinstance(seed, int) and seed >= 0, "seed", seed, "must be a whole number, not negative")
    require(set(sizes) == set(SPLITS), "sizes", dict(sizes), f"must name {', '.join(SPLITS)}")
    for split, size in sizes.items():
        require(isinstance(size, int) and 1 <= size < 100_000, f"sizes.{split}", size, "must be from 1 to 99,999")
    require(isinstance(workers, int) and workers >= 1, "workers", workers, "must be at least 1")


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 good, 1 a fault that the user can mend, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        description="Make the AffectProbe corpus: spoken dialogues whose text does not say how the speaker feels.",
        epilog="example: python recipes/AffectProbe/prepare.py --data_folder results/AffectProbe/data",
    )
    parser.add_argument("--data_folder", required=True, help="where the corpus goes")
    parser.add_argument("--corpus", default=str(CORPUS), help="YAML of affects, voices and sentences [%(default)s]")
    parser.add_argument("--level", default="standard", help="easy, standard or hard [%(default)s]")
    parser.add_argument("--fold", type=int, default=0, help="whose recordings are the test split [%(default)s]")
    parser.add_argument("--seed", type=int, default=1234, help="the same seed gives the same bytes [%(default)s]")
    for split, size in SIZES.items():
        parser.add_argument(f"--{split}", type=int, default=size, help=f"dialogues for {split} [%(default)s]")
    parser.add_argument("--workers", type=int, default=2, help="processes that speak [%(default)s]")
    chosen = parser.parse_args(arguments)
    sizes = {split: getattr(chosen, split) for split in SPLITS}
    try:
        summary = prepare(
            chosen.data_folder, chosen.corpus, chosen.level, chosen.fold, chosen.seed, sizes, chosen.workers
        )
    except ES4RError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not summary["made"]:
        print(f"{chosen.data_folder} already holds this corpus; nothing was made.", file=sys.stderr)
    print(json.dumps(summary, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
