"""What a judge's answers come to: an outcome for each case, and the figures of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from es4r_toolkit.metrics.bootstrap import Bootstrap
from es4r_toolkit.metrics.comparison import difference
from es4r_toolkit.metrics.judge.asking import Question
from es4r_toolkit.metrics.judge.judgements import Judgement, Judgements
from es4r_toolkit.metrics.judge.prompts import PAIRS, JudgePrompt
from es4r_toolkit.metrics.judge.verdicts import Unparsable, Verdict, read_verdict

JUDGED, UNPARSABLE, FAILED, UNASKED = "judged", "unparsable", "failed", "unasked"
WIN, TIE, LOSE = "win", "tie", "lose"
SHOWN_FIRST, SHOWN_SECOND = "A", "B"
# What a choice means for the first of two replies, shown first and shown second.
STRAIGHT = {"A": WIN, "tie": TIE, "B": LOSE}
SWAPPED = {"A": LOSE, "tie": TIE, "B": WIN}


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Of two replies, only what is said in both orders is won or lost (Zheng et al., 2023, conservative approach).

    Attributes
    ----------
    id : str
    status : str
        ``judged``, ``unparsable``, ``failed`` or ``unasked``; a pair is judged where both of its answers are good.
    verdict : dict
        Where it is judged: a score for each aspect, or ``win``, ``tie`` or ``lose`` of the first reply.
    flipped : dict of str to str
        Aspects whose verdict turned with the order, and which place won both times: ``A``, shown first, or ``B``.
    wavering : tuple of str
        Aspects that were a tie in one order only.
    problem : str or None
        Why it is not judged.
    """

    id: str
    status: str
    verdict: Verdict = field(default_factory=dict)
    flipped: Mapping[str, str] = field(default_factory=dict)
    wavering: tuple[str, ...] = ()
    problem: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Plain values; what is empty is left out."""
        return {name: value for name, value in vars(self).items() if value}


def outcomes(asked: Sequence[Sequence[Question]], judgements: Judgements, prompt: JudgePrompt) -> list[Outcome]:
    """One outcome for each case, from the answers to its questions."""
    return [_outcome(several, judgements, prompt) for several in asked]


def _outcome(several: Sequence[Question], judgements: Judgements, prompt: JudgePrompt) -> Outcome:
    name, found = several[0].case.id, [judgements[one.key] for one in several]
    if failures := [one.problem for one in found if one is not None and not one.answered]:
        return Outcome(name, FAILED, problem=failures[0])
    if None in found:
        return Outcome(name, UNASKED, problem="was not asked")
    try:
        verdicts = [read_verdict(one.text, prompt.kind, prompt.aspects) for one in found]
    except Unparsable as fault:
        # Such as length: the answer was cut short.
        ends = sorted({one.finish for one in found} - {"stop", None})
        return Outcome(name, UNPARSABLE, problem=str(fault) + (f" (ended by {', '.join(ends)})" if ends else ""))
    if prompt.kind != PAIRS:
        return Outcome(name, JUDGED, verdicts[0])
    straight, swapped = verdicts
    both = {aspect: (STRAIGHT[straight[aspect]], SWAPPED[swapped[aspect]]) for aspect in prompt.aspects}
    verdict = {aspect: one if one == other else TIE for aspect, (one, other) in both.items()}
    flipped = {aspect: straight[aspect] for aspect, pair in both.items() if set(pair) == {WIN, LOSE}}
    wavering = tuple(aspect for aspect, pair in both.items() if TIE in pair and len(set(pair)) == 2)
    return Outcome(name, JUDGED, verdict, flipped, wavering)


def figures(found: Sequence[Outcome], prompt: JudgePrompt, seed: int = 0) -> dict[str, object]:
    """Counts of all outcomes, and the figures of those that are judged.

    Arguments
    ---------
    found : sequence of Outcome
    prompt : JudgePrompt
    seed : int
        Of the bootstrap's resamples.

    Returns
    -------
    dict
        ``cases``, ``judged``, ``unparsable``, ``failed`` and ``unasked``. For scores ``scores``: the mean of each
        aspect and its interval. For pairs ``pairs``: the shares of win, tie and lose of each aspect, each with its
        interval, ``net`` (win less lose) with its interval and p, and how many were ``flipped`` or ``wavering``; and
        ``position_bias``. Intervals are of the bootstrap over cases, at 95 %.

    Example
    -------
    >>> prompt = JudgePrompt("scores", {"empathy": ""}, "$aspects $form", "$dialogue $reply", "$reference $reply")
    >>> found = [Outcome("a", "judged", {"empathy": 7.0}), Outcome("b", "failed", problem="HTTP 500")]
    >>> figures(found, prompt)["scores"], figures(found, prompt)["failed"]
    ({'empathy': {'mean': 7.0, 'interval': [7.0, 7.0]}}, 1)
    """
    counts = Counter(one.status for one in found)
    values: dict[str, object] = {"cases": len(found)}
    values |= {status: counts[status] for status in (JUDGED, UNPARSABLE, FAILED, UNASKED)}
    judged = [one for one in found if one.status == JUDGED]
    if not judged:
        return values
    bootstrap = Bootstrap(len(judged), seed=seed)
    if prompt.kind != PAIRS:
        return values | {"scores": {aspect: _mean(judged, aspect, bootstrap) for aspect in prompt.aspects}}
    pairs = {aspect: _shares(judged, aspect, bootstrap) for aspect in prompt.aspects}
    return values | {"pairs": pairs, "position_bias": _position_bias(judged, prompt)}


def spent(
    asked: Sequence[Sequence[Question]],
    judgements: Judgements,
    price_in: float | None = None,
    price_out: float | None = None,
) -> dict[str, object]:
    """What the answers cost that a result rests on, and of these what this run had to ask.

    Arguments
    ---------
    asked : sequence of sequence of Question
    judgements : Judgements
    price_in, price_out : float or None
        Of a million tokens, in any currency; money is told where both are given.

    Returns
    -------
    dict
        ``all`` and ``now``, each with ``answers``, ``tokens_in``, ``tokens_out``, ``without_usage`` (answers of which
        the server did not say what they cost) and ``money``.
    """
    found = {one.key: judgements[one.key] for several in asked for one in several}
    parts = {"all": [one for one in found.values() if one is not None], "now": judgements.new}
    return {name: _cost(part, price_in, price_out) for name, part in parts.items()}


def _cost(part: Sequence[Judgement], price_in: float | None, price_out: float | None) -> dict[str, object]:
    tokens_in, tokens_out = (sum(getattr(one, name) or 0 for one in part) for name in ("tokens_in", "tokens_out"))
    silent = sum(one.answered and None in (one.tokens_in, one.tokens_out) for one in part)
    answers = sum(one.answered for one in part)
    cost: dict[str, object] = {"answers": answers, "tokens_in": tokens_in, "tokens_out": tokens_out}
    cost["without_usage"] = silent
    if price_in is not None and price_out is not None:
        cost["money"] = round((tokens_in * price_in + tokens_out * price_out) / 1e6, 6)
    return cost


def _mean(judged: Sequence[Outcome], aspect: str, bootstrap: Bootstrap) -> dict[str, object]:
    scores = [one.verdict[aspect] for one in judged]
    return {"mean": round(float(np.mean(scores)), 4), "interval": _rounded(bootstrap.mean(scores))}


def _shares(judged: Sequence[Outcome], aspect: str, bootstrap: Bootstrap) -> dict[str, object]:
    found = {way: [one.verdict[aspect] == way for one in judged] for way in (WIN, TIE, LOSE)}
    shares: dict[str, object] = {}
    for way, hits in found.items():
        shares[way] = round(float(np.mean(hits)), 4)
        shares[f"{way}_interval"] = _rounded(bootstrap.mean(hits))
    drawn = bootstrap.means(found[WIN]) - bootstrap.means(found[LOSE])
    less = difference(float(np.mean(found[WIN])), float(np.mean(found[LOSE])), drawn, bootstrap).as_dict()
    shares |= {"net": less["difference"], "net_interval": less["interval"], "p": less["p"]}
    shares["flipped"] = sum(aspect in one.flipped for one in judged)
    shares["wavering"] = sum(aspect in one.wavering for one in judged)
    return shares


def _position_bias(judged: Sequence[Outcome], prompt: JudgePrompt) -> dict[str, object]:
    places = Counter(place for one in judged for place in one.flipped.values())
    verdicts, flipped = len(judged) * len(prompt.aspects), places.total()
    return {
        "verdicts": verdicts,
        "flipped": flipped,
        "share": round(flipped / verdicts, 4),
        "to_the_first_shown": places[SHOWN_FIRST],
        "to_the_second_shown": places[SHOWN_SECOND],
    }


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(value, 4) for value in interval]
