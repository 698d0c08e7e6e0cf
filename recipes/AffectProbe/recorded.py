"""AffectProbe from recordings: dialogues composed of clips in which actors say the same sentences in many ways.

Each dialogue keeps one speaker; the listener is another actor of the same split, in a neutral clip. The sentence must
not tell the emotion, though no corpus holds every sentence of every actor under every emotion: clips are drawn with
weights that leave each sentence as likely under one emotion as under any other.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from clips import Clip, read_clips

from es4r_toolkit.errors import ConfigError

ROUNDS = 300  # of fitting the weights; they settle within some dozens


class ClipPool:
    """The clips of one split, and how likely each is drawn.

    Arguments
    ---------
    clips : sequence of Clip
        Of the split's speakers.
    emotions : sequence of str
        In which a speaker may speak.

    Attributes
    ----------
    speakers : list of str
    sentences : list of str
        Those that the split holds under every emotion, by whomever.
    weights : array (emotions, speakers, sentences)
        Of drawing a speaker's sentence; 0 where there is no such clip.

    Raises
    ------
    ConfigError
        If a speaker lacks an emotion, or no sentence occurs under every one.
    """

    def __init__(self, clips: Sequence[Clip], emotions: Sequence[str]):
        self.emotions = list(emotions)
        self.speakers = sorted({clip.speaker for clip in clips})
        self.clips: dict[tuple[str, str, str], list[Clip]] = defaultdict(list)
        for clip in clips:
            self.clips[clip.emotion, clip.speaker, clip.sentence].append(clip)
        said = {clip.sentence for clip in clips}
        self.sentences = sorted(s for s in said if all(self._sayers(emotion, s) for emotion in self.emotions))
        if not self.sentences:
            raise ConfigError("clips", f"hold no sentence under each of {self.emotions}", "choose fewer emotions")
        cells = itertools.product(self.emotions, self.speakers, self.sentences)
        shape = len(self.emotions), len(self.speakers), len(self.sentences)
        self.there = np.array([cell in self.clips for cell in cells], float).reshape(shape)
        for emotion, speaker in zip(*np.nonzero(self.there.sum(axis=2) == 0)):
            lacking = f"{self.speakers[speaker]} has no clip of {self.emotions[emotion]}"
            raise ConfigError("clips", lacking, "leave out the speaker or the emotion")
        self.opens = np.ones(len(self.sentences), dtype=bool)
        self.weights = self._fit()

    def _sayers(self, emotion: str, sentence: str) -> list[str]:
        return [speaker for speaker in self.speakers if (emotion, speaker, sentence) in self.clips]

    def _fit(self) -> np.ndarray:
        """Weights by which, behind an opening sentence, each later one is as likely under every emotion."""
        weights = np.ones((len(self.emotions), len(self.sentences)))
        for _ in range(ROUNDS):
            weights /= self._later(self.there * weights[:, None, :]) * len(self.sentences)
        return self.there * weights[:, None, :]

    def _later(self, weights: np.ndarray) -> np.ndarray:
        """How likely each sentence (emotions, sentences) is in a second turn, the first being any."""
        total = weights.sum(axis=2)
        # Speaker given first emotion e, first sentence s and second emotion f.
        speaker = self.there[:, None] * total[None, :, :, None]
        speaker = speaker / speaker.sum(axis=2, keepdims=True)
        firsts = len(self.emotions) * self.opens.sum()
        return np.einsum("efps,fpt->ft", speaker[..., self.opens], weights / total[:, :, None]) / firsts

    def open_with(self, sentences: Sequence[str]) -> None:
        """Let dialogues begin with these alone, and fit the weights to that."""
        self.opens = np.isin(self.sentences, list(sentences))
        self.weights = self._fit()

    def draw(self, emotions: Sequence[str], first: str, rng: np.random.Generator) -> list[Clip]:
        """A clip for each turn of one speaker, the first of a given sentence."""
        wanted = [self.emotions.index(emotion) for emotion in emotions]
        place = self.sentences.index(first)
        likely = self.there[wanted[0], :, place] * self.weights[wanted[1:]].sum(axis=2).prod(axis=0)
        speaker = rng.choice(len(self.speakers), p=likely / likely.sum())
        chosen = [place]
        for emotion in wanted[1:]:
            weights = self.weights[emotion, speaker]
            chosen.append(rng.choice(len(weights), p=weights / weights.sum()))
        keys = zip(emotions, [self.speakers[speaker]] * len(chosen), (self.sentences[index] for index in chosen))
        return [self._take(key, rng) for key in keys]

    def draw_listener(self, emotion: str, speaker: str, rng: np.random.Generator) -> Clip:
        """A clip of anybody else, in the listener's emotion."""
        keys = [key for key in sorted(self.clips) if key[0] == emotion and key[1] != speaker]
        return self._take(keys[rng.integers(len(keys))], rng)

    def _take(self, key: tuple[str, str, str], rng: np.random.Generator) -> Clip:
        takes = self.clips[key]
        return takes[rng.integers(len(takes))]


def open_pools(config: dict, path: Path, fold: int) -> dict[str, ClipPool]:
    """Read the clip table of a corpus YAML and share it out to the splits; ``problems`` of the table go to the config.

    Arguments
    ---------
    config : dict
        The corpus YAML.
    path : Path
        Where it stands; the table's path starts from the working directory or from there.
    fold : int
        Which of ``folds`` is the test split; the speakers of the others train and validate.

    Raises
    ------
    ConfigError
        If the table or the speakers do not fit.
    """
    table = Path(config["clips"])
    table = table if table.is_absolute() or table.is_file() else path.parent / table
    clips, config["problems"] = read_clips(table, config.get("columns"))
    folds = config["folds"]
    if not 0 <= fold < len(folds):
        raise ConfigError("fold", f"got {fold}", f"must be from 0 to {len(folds) - 1}")
    known = {clip.speaker for clip in clips}
    strangers = sorted({str(name) for names in folds for name in names} - known)
    if strangers:
        raise ConfigError("folds", f"name {strangers}, who have no clip in {table}", f"choose from {sorted(known)}")
    test = {str(name) for name in folds[fold]}
    train = {str(name) for names in folds for name in names} - test
    wanted = set(config["affects"]) | {config["listener"]}
    pools = {}
    # Few corpora have actors to spare for validation; where none are named, it is other dialogues of the training's.
    valid = {str(name) for name in config.get("valid", train)} & train
    train = train - valid or train
    for split, speakers in (("train", train), ("valid", valid), ("test", test)):
        if len(speakers) < 2:
            raise ConfigError(f"fold {fold}", f"gives {split} {sorted(speakers)}", "two speakers are needed")
        of_split = [clip for clip in clips if clip.speaker in speakers and clip.emotion in wanted]
        pools[split] = ClipPool(of_split, list(config["affects"]))
    return pools


def keep_shared_topics(config: dict) -> None:
    """Leave the topics out that not every split can open a dialogue with: what a topic is called has to be learned.

    Arguments
    ---------
    config : dict
        With ``pools``; ``topics`` keeps of each topic the sentences that each
        split holds under every emotion, and ``reply`` what is left of topics.

    Raises
    ------
    ConfigError
        If there are fewer than two.
    """
    shared = set.intersection(*(set(pool.sentences) for pool in config["pools"].values()))
    found = {topic: [s for s in map(str, ids) if s in shared] for topic, ids in config["topics"].items()}
    config["topics"] = {topic: sentences for topic, sentences in found.items() if sentences}
    if len(config["topics"]) < 2:
        raise ConfigError("topics", f"of all splits: {sorted(config['topics'])}", "share out the speakers otherwise")
    for pool in config["pools"].values():
        pool.open_with([sentence for sentences in config["topics"].values() for sentence in sentences])
    replies = config["reply"]["topic"]
    config["reply"]["topic"] = {topic: reply for topic, reply in replies.items() if topic in config["topics"]}


def plan_recorded(config: Mapping, split: str, slots: Mapping[str, str], affects: Sequence[str], rng) -> list[dict]:
    """Who says what in one dialogue of recorded clips.

    Arguments
    ---------
    config : mapping
        With ``pools``.
    split : str
    slots : mapping
    affects : sequence of str
        Of the speaker's turns.
    rng : numpy Generator

    Returns
    -------
    list of dict
        A turn each: ``role, text, emotion, voice, wav``.
    """
    pool = config["pools"][split]
    sentences = config["topics"][slots["topic"]]
    spoken = pool.draw(affects, str(rng.choice(sentences)), rng)
    turns = []
    for clip in spoken:
        if turns:
            turns.append(_turn("listener", pool.draw_listener(config["listener"], clip.speaker, rng)))
        turns.append(_turn("speaker", clip))
    return turns


def _turn(role: str, clip: Clip) -> dict:
    return {"role": role, "text": clip.text, "emotion": clip.emotion, "voice": clip.speaker, "wav": clip.wav}
