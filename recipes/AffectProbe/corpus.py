"""What is said in the AffectProbe corpus, and how: reading its YAML, drawing labels, planning dialogues and replies.

Nothing here speaks or writes a file; prepare.py does. The same seed gives the same dialogues.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from recorded import keep_shared_topics, open_pools, plan_recorded
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from es4r_toolkit.backends.espeak import pitch_parameter
from es4r_toolkit.errors import ConfigError

CORPUS = Path(__file__).parent / "hparams" / "corpus.yaml"
SPLITS = ("train", "valid", "test")
SLOTS = ("affect", "trend", "topic")
TRENDS = ("better", "same", "worse")
FEATURES = ("rate", "pitch", "pitch_range", "level", "word_gap")
# What a YAML file holds beside affects, recording, speaker_turns, topics and reply.
SPOKEN = ("levels", "neutral", "voices", "name_topic_again", "sentences")
RECORDED = ("clips", "folds", "listener")
# What espeak-ng takes, and what a wider region is cut to.
BOUNDS = {"rate": (80, 450), "pitch_range": (0, 99), "word_gap": (0, 50)}
NEUTRAL_PITCH_RANGE = 50


# ---------------------------------------------------------------------------------------------------------------------
# What the YAML file says


def read_corpus(path: str | Path, level: str = "standard", fold: int = 0) -> dict:
    """Read and check a corpus YAML; every fault is a ConfigError that names the entry.

    Arguments
    ---------
    path : str or Path
    level : str
        How hard the affects are to tell apart, of a corpus spoken by espeak-ng.
    fold : int
        Whose recordings are the test split, of a corpus of recordings.

    Returns
    -------
    dict
        What the file holds, with the level applied, or with the clips in
        ``pools`` and what was left out of them in ``problems``.
    """
    try:
        config = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except (OSError, YAMLError) as error:
        raise ConfigError(
            path, f"cannot be read ({' '.join(str(error).split())})", "give a corpus YAML file"
        ) from error
    recorded = isinstance(config, dict) and config.get("source") == "recorded"
    needed = {"affects", "recording", "speaker_turns", "topics", "reply", *(RECORDED if recorded else SPOKEN)}
    missing = sorted(needed - set(config if isinstance(config, dict) else ()))
    _require(not missing, path, f"lacks {missing}", "see recipes/AffectProbe/hparams/corpus.yaml")
    if recorded:
        _check_shared(config)
        config["pools"] = open_pools(config, Path(path), fold)
        _check_reply(config)
        keep_shared_topics(config)
        return config
    levels = config.pop("levels")
    _require(level in levels, "level", f"got {level!r}", f"must be one of {', '.join(levels)}")
    config["recording"] |= levels[level]["recording"]
    spread = levels[level].get("spread")
    _require(isinstance(spread, int | float) and spread > 0, f"levels.{level}.spread", spread, "must be above 0")
    _check_shared(config)
    _check_speech(config)
    _check_text(config)
    _check_reply(config)
    config["affects"] = {name: _widened(row, spread) for name, row in config["affects"].items()}
    return config


def _widened(row: dict, spread: float) -> dict:
    """An affect's region, so many times as wide about its middle, within what espeak-ng takes."""
    wide = dict(row)
    for feature in FEATURES:
        low, high = row[feature]
        middle, half = (low + high) / 2, spread * (high - low) / 2
        least, most = BOUNDS.get(feature, (-99, 99))
        wide[feature] = [max(middle - half, least), min(middle + half, most)]
    return wide


def fingerprint(config: Mapping) -> str:
    """A hash of all that decides what is said and how, clips included."""
    settings = {key: value for key, value in config.items() if key not in ("pools", "problems")}
    for split, pool in config.get("pools", {}).items():
        clips = (clip for takes in pool.clips.values() for clip in takes)
        settings[f"{split} clips"] = sorted([*map(str, vars(clip).values()), clip.wav.stat().st_size] for clip in clips)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _check_shared(config: dict) -> None:
    _require(len(config["affects"]) >= 2, "affects", f"holds {len(config['affects'])}", "at least two are needed")
    for name, row in config["affects"].items():
        valence = row.get("valence")
        _require(isinstance(valence, int | float), f"affects.{name}.valence", valence, "must be a number")
    for name in ("gain", "snr", "noise_colour", "lead"):
        _check_range(f"recording.{name}", config["recording"].get(name))
    _check_range("speaker_turns", config["speaker_turns"])
    _require(config["speaker_turns"][0] >= 2, "speaker_turns", config["speaker_turns"], "a trend needs two turns")


def _check_speech(config: dict) -> None:
    for name, row in {**config["affects"], "neutral": config["neutral"]}.items():
        for feature in FEATURES:
            _check_range(f"affects.{name}.{feature}", row.get(feature))
    _check_range("recording.rate_jitter", config["recording"].get("rate_jitter"))
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
    if "pools" in config:
        yield from sorted({clip.text for takes in config["pools"][split].clips.values() for clip in takes})
        return
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
        A turn each: ``role, text, emotion, voice``, and either the ``level``
        in dB and the parameters of espeak-ng or the ``wav`` of a clip.
    """
    valences = {name: row["valence"] for name, row in config["affects"].items()}
    low, high = config["speaker_turns"]
    count = int(rng.integers(low, high + 1))
    first = str(rng.choice(first_affects(valences, slots["affect"], slots["trend"])))
    affects = [first, *rng.choice(list(valences), size=count - 2).tolist(), slots["affect"]]
    if "pools" in config:
        return plan_recorded(config, split, slots, affects, rng)
    speaker, listener = rng.choice(config["voices"][split], size=2, replace=False).tolist()
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


def spoken_otherwise(config: Mapping, turn: Mapping, affect: str, rng: np.random.Generator) -> dict:
    """The same words of the same voice of espeak-ng with another affect."""
    return _turn(turn["role"], turn["text"], affect, turn["voice"], config["affects"][affect], 1.0, rng)


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


def chance(config: dict, labels: list[dict[str, str]]) -> dict[str, dict[str, float]]:
    """What guessing gets right in each slot: the commonest value's share of these labels, and 1 / values."""
    values = {"affect": len(config["affects"]), "trend": len(TRENDS), "topic": len(config["topics"])}
    common = {slot: max(Counter(label[slot] for label in labels).values()) / len(labels) for slot in SLOTS}
    return {slot: {"commonest": round(common[slot], 4), "uniform": round(1 / values[slot], 4)} for slot in SLOTS}


def trend_from_last_affect(config: dict) -> float:
    """The trend accuracy within reach of one who hears the last turn's affect perfectly and nothing before it."""
    valences = {name: row["valence"] for name, row in config["affects"].items()}
    return float(label_shares(valences).max(axis=1).sum())


def affect_from_parameters(config: Mapping, draws: int = 20_000) -> dict[str, float]:
    """The affect accuracy of one who knows the voice and what espeak-ng was given: all features, and each alone.

    Bayes' rule on as many random turns, each affect as likely as any other, the jitter of the rate unknown.
    """
    rng = np.random.default_rng(0)
    regions = np.array([[row[feature] for feature in FEATURES] for row in config["affects"].values()], float)
    low, high = regions[..., 0], regions[..., 1]
    truth = rng.integers(len(regions), size=draws)
    heard = rng.uniform(low[truth], high[truth])
    slow, fast = config["recording"]["rate_jitter"]
    heard[:, 0] *= rng.uniform(slow, fast, draws)
    jitters = np.linspace(slow, fast, 61)
    spoken = heard[:, None, 0] / jitters
    likely = np.empty((len(FEATURES), len(regions), draws))
    for affect, feature in itertools.product(range(len(regions)), range(len(FEATURES))):
        start, end = low[affect, feature], high[affect, feature]
        if feature == 0:
            inside = ((spoken >= start) & (spoken <= end)).mean(axis=1)
        else:
            inside = (heard[:, feature] >= start) & (heard[:, feature] <= end)
        likely[feature, affect] = inside / max(end - start, 1e-9)
    right = {"all": (likely.prod(axis=0).argmax(axis=0) == truth).mean()}
    right |= {name: (scores.argmax(axis=0) == truth).mean() for name, scores in zip(FEATURES, likely)}
    return {name: round(float(share), 4) for name, share in right.items()}
