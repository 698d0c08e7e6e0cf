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
import hashlib
import itertools
import json
import math
import re
import shutil
import sys
import tempfile
import time
import wave
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from scipy.signal import firwin, lfilter, resample_poly
from tqdm import tqdm

from es4r_toolkit.backends.espeak import EspeakSynthesizer, pitch_parameter
from es4r_toolkit.errors import AudioError, ConfigError, ES4RError

CORPUS = Path(__file__).parent / "hparams" / "corpus.yaml"
SIZES = {"train": 1300, "valid": 100, "test": 200}
SPLITS = tuple(SIZES)
SLOTS = ("affect", "trend", "topic")
TRENDS = ("better", "same", "worse")
FEATURES = ("rate", "pitch", "pitch_range", "level", "word_gap")
COMPLETION_MARK = "corpus.json"
OUTPUTS = (COMPLETION_MARK, "slots.json", *(f"{split}.jsonl" for split in SPLITS), "wav")
FORMAT = 1  # raise when this file writes other bytes for the same settings
NEUTRAL_PITCH_RANGE = 50
# At full volume several voices clip inside espeak-ng, out of reach of any later gain.
VOLUME = 50
SILENCE = 0.003  # of full scale; espeak-ng's pauses are digital silence


def prepare(
    data_folder: str | Path,
    corpus: str | Path = CORPUS,
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
        The YAML file of affects, voices and sentences.
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
    config = read_corpus(corpus)
    folder = Path(data_folder)
    fingerprint = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    settings = {"format": FORMAT, "corpus_sha256": fingerprint, "seed": seed, "sizes": {s: sizes[s] for s in SPLITS}}
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
# What the YAML file says


def read_corpus(path: str | Path) -> dict:
    """Read and check corpus.yaml; every fault is a ConfigError that names the entry."""
    try:
        config = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise ConfigError(
            path, f"cannot be read ({' '.join(str(error).split())})", "give a corpus YAML file"
        ) from error
    needed = {"affects", "neutral", "voices", "recording", "speaker_turns", "name_topic_again", "topics", "sentences"}
    missing = sorted((needed | {"reply"}) - set(config if isinstance(config, dict) else ()))
    _require(not missing, path, f"lacks {missing}", "see recipes/AffectProbe/hparams/corpus.yaml")
    _check_speech(config)
    _check_text(config)
    _check_reply(config)
    return config


def _check_speech(config: dict) -> None:
    _require(len(config["affects"]) >= 2, "affects", f"holds {len(config['affects'])}", "at least two are needed")
    for name, row in {**config["affects"], "neutral": config["neutral"]}.items():
        for feature in FEATURES:
            _check_range(f"affects.{name}.{feature}", row.get(feature))
        valence = row.get("valence")
        _require(name == "neutral" or isinstance(valence, int | float), f"affects.{name}.valence", valence, "a number")
    for name in ("gain", "snr", "noise_colour", "rate_jitter", "lead"):
        _check_range(f"recording.{name}", config["recording"].get(name))
    _check_range("speaker_turns", config["speaker_turns"])
    _require(config["speaker_turns"][0] >= 2, "speaker_turns", config["speaker_turns"], "a trend needs two turns")
    for split in SPLITS:
        voices = config["voices"].get(split, [])
        _require(len(set(voices)) >= 2, f"voices.{split}", voices, "speaker and listener need two voices")
    # A variant sounds much the same in every accent, so the variant is what must differ.
    spoken = [(split, voice.partition("+")[2] or voice) for split in SPLITS for voice in config["voices"][split]]
    for (split, voice), (other, same) in itertools.combinations(spoken, 2):
        _require(voice != same, f"voices.{split}", f"{voice} is in {other} too", "each voice belongs to one split")


def _check_text(config: dict) -> None:
    nouns = [(topic, noun) for topic, entries in config["topics"].items() for noun in entries]
    for (topic, noun), (other, same) in itertools.permutations(nouns, 2):
        _require(not _says(noun, same), f"topics.{topic}", f"{noun!r} holds {same!r} of {other}", "name it otherwise")
    spoken: dict[str, str] = {}
    for split in SPLITS:
        for kind in ("named", "plain", "listener"):
            item = f"sentences.{split}.{kind}"
            templates = config["sentences"].get(split, {}).get(kind, [])
            _require(bool(templates), item, "is empty", "give at least one sentence")
            for template in templates:
                rule = "named sentences hold {noun} once, others never"
                _require(template.count("{noun}") == int(kind == "named"), item, repr(template), rule)
                named = [noun for _, noun in nouns if _says(template, noun)]
                _require(not named, item, f"{template!r} names {named}", "only {noun} may name a topic")
        for sentence in all_sentences(config, split):
            other = spoken.setdefault(sentence.lower(), split)
            _require(
                other == split, f"sentences.{split}", f"{sentence!r} is in {other} too", "each belongs to one split"
            )


def all_sentences(config: dict, split: str) -> Iterator[str]:
    """Every sentence that can be said in a split."""
    nouns = [noun for entries in config["topics"].values() for noun in entries]
    templates = config["sentences"][split]
    for template in [*templates["named"], *templates["plain"], *templates["listener"]]:
        yield from sorted({_fill(template, noun) for noun in nouns})


def _check_reply(config: dict) -> None:
    reply = config["reply"]
    wanted = {"affect": set(config["affects"]), "trend": set(TRENDS), "topic": set(config["topics"])}
    _require(sorted(reply.get("order", [])) == sorted(SLOTS), "reply.order", reply.get("order"), f"must hold {SLOTS}")
    for slot in SLOTS:
        values = set(reply.get(slot, {}))
        rule = f"the values must be {sorted(wanted[slot])}"
        _require(values == wanted[slot], f"reply.{slot}", f"has {sorted(values)}", rule)
    phrases = [
        (s, value, phrase) for s, values in key_phrases(config).items() for value in values for phrase in values[value]
    ]
    clauses = [(s, value, _plain(clause)) for s in SLOTS for value, entries in reply[s].items() for clause in entries]
    for slot, value, phrase in phrases:
        for other_slot, other, clause in clauses:
            apart = (slot, value) == (other_slot, other) or phrase not in clause.lower()
            item, problem = (
                f"reply.{other_slot}.{other}",
                f"{clause!r} holds {phrase!r}, the key phrase of {slot} {value}",
            )
            _require(apart, item, problem, "word it otherwise")
        for split in SPLITS:
            said = [sentence for sentence in all_sentences(config, split) if phrase in sentence.lower()]
            _require(not said, f"sentences.{split}", f"{said[:1]} hold the key phrase {phrase!r}", "word it otherwise")


def key_phrases(config: dict) -> dict[str, dict[str, list[str]]]:
    """Slot -> value -> the phrases, in lower case, that name the value in a reply."""
    phrases: dict[str, dict[str, list[str]]] = {}
    for slot in SLOTS:
        phrases[slot] = {}
        for value, clauses in config["reply"][slot].items():
            found = [re.findall(r"\[([^\[\]]+)\]", clause) for clause in clauses]
            _require(bool(found), f"reply.{slot}.{value}", "is empty", "give at least one clause")
            for clause, marked in zip(clauses, found):
                _require(
                    len(marked) == 1, f"reply.{slot}.{value}", repr(clause), "mark one [key phrase] in each clause"
                )
            phrases[slot][value] = [marked[0].lower() for marked in found]
    return phrases


# ---------------------------------------------------------------------------------------------------------------------
# What is asked for in each dialogue


def label_shares(valences: Mapping[str, float]) -> np.ndarray:
    """Share of each (last affect, trend): the most even table that leaves both margins uniform.

    Arguments
    ---------
    valences : mapping of str to float
        Of each affect.

    Returns
    -------
    array (affects, 3)
        Trends in the order better, same, worse; 0 where no first affect
        could give that trend. Found by iterative proportional fitting, which
        from a flat start tends to the table of maximum entropy.

    Example
    -------
    >>> label_shares({"low": -1, "high": 1}).round(3).tolist()
    [[0.0, 0.167, 0.333], [0.333, 0.167, 0.0]]
    """
    table = np.array([[bool(first_affects(valences, last, trend)) for trend in TRENDS] for last in valences], float)
    possible = table.any(axis=0).all()
    for _ in range(10_000 if possible else 0):
        table /= table.sum(axis=1, keepdims=True) * len(table)
        table /= table.sum(axis=0, keepdims=True) * len(TRENDS)
        if np.allclose(table.sum(axis=1), 1 / len(table), rtol=0, atol=1e-9):
            return table
    raise ConfigError("affects", "allow no even spread of trends", "give them more than one valence")


def first_affects(valences: Mapping[str, float], last: str, trend: str) -> list[str]:
    """The affects from which a dialogue that ends in ``last`` has followed the trend."""
    sign = {"better": 1, "same": 0, "worse": -1}[trend]
    return [first for first in valences if np.sign(valences[last] - valences[first]) == sign]


def draw_labels(config: dict, split: str, size: int, seed: int) -> list[dict[str, str]]:
    """The slots of each dialogue of a split, as evenly spread over their values as the size allows."""
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    valences = {name: row["valence"] for name, row in config["affects"].items()}
    cells = list(itertools.product(valences, TRENDS))
    # Evenly spaced points through the cells, instead of free draws, keep the margins uniform in a small split too.
    points = (np.arange(size) + rng.random()) / max(size, 1)
    chosen = np.searchsorted(np.cumsum(label_shares(valences)).round(12), points, side="right").clip(max=len(cells) - 1)
    topics = rng.permutation(np.resize(rng.permutation(list(config["topics"])), size))
    return [
        {"affect": cells[cell][0], "trend": cells[cell][1], "topic": str(topic)}
        for cell, topic in zip(rng.permutation(chosen), topics)
    ]


def plan_dialogue(config: dict, split: str, slots: Mapping[str, str], rng: np.random.Generator) -> list[dict]:
    """Who says what, and how, in one dialogue that ends in the wished slots.

    Returns
    -------
    list of dict
        A turn each: ``role, text, emotion, voice``, the ``level`` in dB and
        the parameters of espeak-ng.
    """
    valences = {name: row["valence"] for name, row in config["affects"].items()}
    speaker, listener = rng.choice(config["voices"][split], size=2, replace=False).tolist()
    low, high = config["speaker_turns"]
    count = int(rng.integers(low, high + 1))
    first = str(rng.choice(first_affects(valences, slots["affect"], slots["trend"])))
    affects = [first, *rng.choice(list(valences), size=count - 2).tolist(), slots["affect"]]
    noun = str(rng.choice(config["topics"][slots["topic"]]))
    jitter = rng.uniform(*config["recording"]["rate_jitter"])
    said: set[str] = set()
    turns = []
    for position, affect in enumerate(affects):
        if position > 0:
            text = _pick(config["sentences"][split]["listener"], said, rng)
            turns.append(_turn("listener", text, "neutral", listener, config["neutral"], jitter, rng))
        named = position == 0 or rng.random() < config["name_topic_again"]
        text = _fill(_pick(config["sentences"][split]["named" if named else "plain"], said, rng), noun)
        turns.append(_turn("speaker", text, affect, speaker, config["affects"][affect], jitter, rng))
    return turns


def _turn(
    role: str, text: str, emotion: str, voice: str, region: dict, jitter: float, rng: np.random.Generator
) -> dict:
    drawn = {feature: rng.uniform(*region[feature]) for feature in FEATURES}
    extra_range = drawn["pitch_range"] - NEUTRAL_PITCH_RANGE
    return {
        "role": role,
        "text": text,
        "emotion": emotion,
        "voice": voice,
        "level": drawn["level"],
        "rate": round(drawn["rate"] * jitter),
        "pitch": min(max(round(pitch_parameter(drawn["pitch"], extra_range)), 0), 99),
        "pitch_range": round(drawn["pitch_range"]),
        "word_gap": round(drawn["word_gap"]),
    }


def _pick(sentences: list[str], said: set[str], rng: np.random.Generator) -> str:
    fresh = [sentence for sentence in sentences if sentence not in said] or sentences
    sentence = str(rng.choice(fresh))
    said.add(sentence)
    return sentence


def reply_text(config: dict, slots: Mapping[str, str], rng: np.random.Generator) -> str:
    """A reply that names the three slots, in one of its paraphrases."""
    clauses = (str(rng.choice(config["reply"][slot][slots[slot]])) for slot in config["reply"]["order"])
    return " ".join(map(_plain, clauses))


# ---------------------------------------------------------------------------------------------------------------------
# Speech


def speak_dialogue(
    espeak: EspeakSynthesizer, turns: list[dict], recording: dict, rng: np.random.Generator
) -> tuple[list[np.ndarray], bool]:
    """Speak the turns as one recording: one gain, one noise.

    Returns
    -------
    waveforms : list of int16 array (samples,)
    scaled : bool
        Whether the dialogue had to be made quieter so as not to clip.
    """
    waveforms = []
    for turn in turns:
        parameters = {name: turn[name] for name in ("voice", "rate", "pitch", "pitch_range", "word_gap")}
        samples, rate = espeak.speak(turn["text"], volume=VOLUME, **parameters)
        speech = _resample(_trim(samples / 32768, turn["text"]), rate, recording["sample_rate"])
        waveforms.append(speech * 10 ** (turn["level"] / 20))
    power = np.mean(np.concatenate(waveforms) ** 2)
    noise_level = math.sqrt(power * 10 ** (-rng.uniform(*recording["snr"]) / 10))
    pole = rng.uniform(*recording["noise_colour"])
    gain = 10 ** ((recording["headroom"] + rng.uniform(*recording["gain"])) / 20)
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
    voices = [EspeakSynthesizer() for _ in range(workers)]
    free: SimpleQueue[EspeakSynthesizer] = SimpleQueue()
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
        espeak_version = voices[0].version
    finally:
        pool.shutdown(cancel_futures=True)
        for espeak in voices:
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
        "espeak_ng": espeak_version,
        "espeakng_loader": metadata.version("espeakng_loader"),
        "seconds_taken": round(time.monotonic() - started, 1),
    }


def _make_dialogue(
    folder: Path, config: dict, seed: int, espeak: EspeakSynthesizer, split: str, index: int, slots: dict[str, str]
) -> dict:
    rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
    turns = plan_dialogue(config, split, slots, rng)
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


def chance(config: dict, labels: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    """What guessing gets right in each slot: the commonest value's share of these labels, and 1 / values."""
    values = {"affect": len(config["affects"]), "trend": len(TRENDS), "topic": len(config["topics"])}
    common = {slot: max(Counter(label[slot] for label in labels).values()) / len(labels) for slot in SLOTS}
    return {slot: {"commonest": round(common[slot], 4), "uniform": round(1 / values[slot], 4)} for slot in SLOTS}


def trend_from_last_affect(config: dict) -> float:
    """The trend accuracy within reach of one who hears the last turn's affect perfectly and nothing before it."""
    valences = {name: row["valence"] for name, row in config["affects"].items()}
    return float(label_shares(valences).max(axis=1).sum())


def _read_mark(folder: Path) -> dict | None:
    path = folder / COMPLETION_MARK
    if not path.exists():
        held = [name for name in OUTPUTS if (folder / name).exists()]
        _require(not held, folder, f"holds {held} but no {COMPLETION_MARK}", "empty it or name another folder")
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
    _require(isinstance(seed, int) and seed >= 0, "seed", seed, "must be a whole number, not negative")
    _require(set(sizes) == set(SPLITS), "sizes", dict(sizes), f"must name {', '.join(SPLITS)}")
    for split, size in sizes.items():
        _require(isinstance(size, int) and 1 <= size < 100_000, f"sizes.{split}", size, "must be from 1 to 99,999")
    _require(isinstance(workers, int) and workers >= 1, "workers", workers, "must be at least 1")


def _check_range(item: str, value: object) -> None:
    numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(end, int | float) for end in value)
    _require(numbers and value[0] <= value[1], item, value, "must be [min, max]")


def _require(kept: bool, item: object, problem: object, mend: str) -> None:
    if not kept:
        raise ConfigError(item, problem if isinstance(problem, str) else f"got {problem!r}", mend)


def _says(text: str, words: str) -> bool:
    return re.search(rf"\b{re.escape(words)}\b", text, re.IGNORECASE) is not None


def _fill(template: str, noun: str) -> str:
    return template.replace("{noun}", noun)


def _plain(clause: str) -> str:
    return clause.replace("[", "").replace("]", "")


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 good, 1 a fault that the user can mend, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        description="Make the AffectProbe corpus: spoken dialogues whose text does not say how the speaker feels.",
        epilog="example: python recipes/AffectProbe/prepare.py --data_folder results/AffectProbe/data",
    )
    parser.add_argument("--data_folder", required=True, help="where the corpus goes")
    parser.add_argument("--corpus", default=str(CORPUS), help="YAML of affects, voices and sentences [%(default)s]")
    parser.add_argument("--seed", type=int, default=1234, help="the same seed gives the same bytes [%(default)s]")
    for split, size in SIZES.items():
        parser.add_argument(f"--{split}", type=int, default=size, help=f"dialogues for {split} [%(default)s]")
    parser.add_argument("--workers", type=int, default=2, help="processes that speak [%(default)s]")
    chosen = parser.parse_args(arguments)
    sizes = {split: getattr(chosen, split) for split in SPLITS}
    try:
        summary = prepare(chosen.data_folder, chosen.corpus, chosen.seed, sizes, chosen.workers)
    except ES4RError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not summary["made"]:
        print(f"{chosen.data_folder} already holds this corpus; nothing was made.", file=sys.stderr)
    print(json.dumps(summary, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
