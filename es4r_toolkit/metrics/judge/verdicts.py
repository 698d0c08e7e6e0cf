"""What a judge's words come to: a verdict in the form that was asked for, or none."""

from __future__ import annotations

import json
from collections.abc import Collection

from es4r_toolkit.metrics.judge.prompts import SCORES

LOWEST, HIGHEST = 0, 10
CHOICES = {"a": "A", "b": "B", "tie": "tie"}
# More is no verdict, and searching it would take long.
LONGEST = 20_000
THOUGHT, THOUGHT_OUT = "<think>", "</think>"
Verdict = dict[str, float] | dict[str, str]


class Unparsable(ValueError):
    """Words that are no verdict, and why."""


def read_verdict(text: str, kind: str, aspects: Collection[str]) -> Verdict:
    """Find the verdict in what a judge said.

    There may be words or a code fence around the JSON object, and a reasoning model's thoughts before it. Nothing is
    guessed: a verdict that lacks an aspect, has a value out of bounds or stands beside another one is none.

    Arguments
    ---------
    text : str
    kind : str
        ``scores``: a number from 0 to 10 for each aspect. ``pairs``: A, B or tie.
    aspects : collection of str

    Returns
    -------
    dict
        ``{aspect: value}``, in the order of the aspects.

    Raises
    ------
    Unparsable
        If there is not exactly one.

    Example
    -------
    >>> read_verdict('Here it is: {"reason": "kind", "empathy": 8}', "scores", ["empathy"])
    {'empathy': 8.0}
    >>> read_verdict('{"empathy": 11}', "scores", ["empathy"])
    Traceback (most recent call last):
    ...
    es4r_toolkit.metrics.judge.verdicts.Unparsable: empathy is 11, not within 0 and 10
    """
    said = text.rsplit(THOUGHT_OUT, 1)[-1].strip()
    if THOUGHT in said:
        raise Unparsable("was cut short in its thoughts")
    if not said:
        raise Unparsable("says nothing")
    if len(said) > LONGEST:
        raise Unparsable(f"is {len(said)} characters long, more than {LONGEST}")
    found = _objects(said)
    if not found:
        raise Unparsable("holds no JSON object")
    whole = [one for one in found if set(aspects) <= set(one)]
    if not whole:
        raise Unparsable(f"lacks {next(aspect for aspect in aspects if aspect not in found[-1])}")
    read = _score if kind == SCORES else _choice
    verdicts = [{aspect: read(aspect, one[aspect]) for aspect in aspects} for one in whole]
    if any(other != verdicts[0] for other in verdicts):
        raise Unparsable(f"holds {len(verdicts)} verdicts that differ")
    return verdicts[0]


def _objects(text: str) -> list[dict[str, object]]:
    """The JSON objects of a text that stand in no other."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_twins)
    found, place = [], text.find("{")
    while place >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
            found.append(value)
        except Unparsable:
            raise
        except RecursionError:
            raise Unparsable("is nested too deep") from None
        except ValueError:
            end = place + 1
        place = text.find("{", end)
    return found


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unparsable("holds a key twice in one object")
    return found


def _score(aspect: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unparsable(f"{aspect} is {_shown(value)}, no number")
    # NaN is not within either.
    if not LOWEST <= value <= HIGHEST:
        raise Unparsable(f"{aspect} is {_shown(value)}, not within {LOWEST} and {HIGHEST}")
    return float(value)


def _choice(aspect: str, value: object) -> str:
    chosen = CHOICES.get(value.strip().lower()) if isinstance(value, str) else None
    if chosen is None:
        raise Unparsable(f"{aspect} is {_shown(value)}, not A, B or tie")
    return chosen


def _shown(value: object) -> str:
    return json.dumps(value)[:40]
