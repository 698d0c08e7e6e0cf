"""Model files that were changed at random ask for nothing but building blocks, and end in one error or in a model.

A longer run: MUTATIONS=30000 python -m pytest tests/contracts/test_trust_mutations.py
"""

from __future__ import annotations

import os
import pydoc
import random
import warnings
from contextlib import suppress
from types import SimpleNamespace

import hyperpyyaml.core
import pytest
from ruamel.yaml.error import ReusedAnchorWarning
from test_trust import BLOCK, BOMBS, FOREIGN, NOT_YAML, ROOT

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.hparams import build, localize
from es4r_toolkit.trust import BUILDING_BLOCKS, SIZES, refuse_foreign_tags

MUTATIONS = int(os.environ.get("MUTATIONS", "300"))
PIECES = [
    *("!", "!!", "!<", "%", "&a ", "*a", "&", "*", "<<: ", "? ", ": ", "- ", "[", "]", "{", "}", "(", ")", "'", '"'),
    *("|\n", "> ", "#", "\n", "\n  ", "---\n", "...\n", "\t", "\r", "\\x", "~", ",", "=", "__a", "1e9", "0x1", "null"),
    *("!new:", "!apply:", "!applyref:", "!name:", "!module:", "!ref ", "<a>", "!copy ", "!include:", "!tuple ", BLOCK),
    *("!!python/object/apply:", "os.system", "getattr", "n_mels", "@model/", "tag:yaml.org,2002:", "python/", "%61"),
    *("%TAG ! ", "%YAML 1.1\n", "!e!", "\u2028", "\x85", "\ufeff", "\U0001f600"),
]


class Part:
    """What stands for any class that is found: it is what is asked for that counts."""

    def __init__(self, *_: object, **__: object):
        for name in SIZES:
            setattr(self, name, 8)


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The names of all classes and functions that YAML asks for; none is built or called but getattr."""
    names: list[str] = []

    def locate(name: str) -> object:
        names.append(name)
        return getattr if name == "getattr" else Part

    assert hyperpyyaml.core.pydoc is pydoc
    monkeypatch.setattr(hyperpyyaml.core, "pydoc", SimpleNamespace(locate=locate))
    return names


def seeds() -> list[str]:
    model = (ROOT / "es4r_toolkit/assets/affectprobe-small/model.yaml").read_text()
    lines = model.splitlines()
    good = [
        f"a: &x {BLOCK}\n    silence: 0.5\nb: !apply:getattr [*x, n_mels]\nc: [1, (a, b), 'q']\n",
        "a: &y {b: 1}\nc:\n  <<: *y\n  d: (2, 2)\n",
        "a: (x, [y], {z: 1})\nb: '(!!x y)'\nc: '@model/q'\n",
        *("\n".join(lines[start : start + 12]) + "\n" for start in range(0, len(lines), 10)),
    ]
    small = [text for text in BOMBS.values() if len(text) < 400]
    return [*good * 4, model, *FOREIGN.values(), *small, *(one.decode("utf-8", "replace") for one in NOT_YAML.values())]


def mutated(texts: list[str], dice: random.Random) -> str:
    text = dice.choice(texts)
    for _ in range(dice.choice((1, 1, 2, 3, 5, 8))):
        place, other = dice.randint(0, len(text)), dice.choice(texts)
        start = dice.randint(0, len(other))
        put = dice.choice((dice.choice(PIECES), chr(dice.randrange(0x3000)), other[start : start + 20], ""))
        text = text[:place] + put + text[place + (0 if put else dice.choice((1, 2, 5, 20))) :]
    return text


def test_whatever_a_model_file_says_only_building_blocks_are_asked_for(asked):
    texts, dice, built = seeds(), random.Random(0), 0
    for _ in range(MUTATIONS):
        text = mutated(texts, dice)
        asked.clear()
        with warnings.catch_warnings(), suppress(ConfigError):
            warnings.simplefilter("ignore", ReusedAnchorWarning)
            refuse_foreign_tags(text, "model.yaml")
            build(localize(text, "/model"))
            built += 1
        assert {f"!new:{name}" for name in asked} - {"!new:getattr"} <= BUILDING_BLOCKS, text
    # Enough of them are let through to say something.
    assert built > MUTATIONS / 50
