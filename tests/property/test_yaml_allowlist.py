"""A YAML of unknown origin: wherever it stands, a tag that is not ours is found; what is let through is harmless."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from soak import examples

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

from targets import yaml as build_what_is_let_through

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.hparams import plain
from es4r_toolkit.trust import refuse_foreign_tags

# A name that is given twice is no fault of a file.
pytestmark = pytest.mark.filterwarnings("ignore::ruamel.yaml.error.ReusedAnchorWarning")

FOREIGN = (
    *(
        "!apply:os.getcwd",
        "!apply:os.system",
        "!new:subprocess.Popen",
        "!name:os.system",
        "!module:os",
        "!ref",
        "!copy",
    ),
    *(
        "!include:/etc/hostname",
        "!applyref:os.getcwd",
        "!!python/name:os.system",
        "!!python/object:os.system",
    ),
    *("!new:es4r_toolkit.hparams.build", "!new:es4r_toolkit.lobes", "!new:es4r_toolkit.lobes.torch.load", "!x"),
    *(
        "!<!apply:os.getcwd>",
        "!<tag:yaml.org,2002:python/name:os.system>",
        "!new:es4r_toolkit.backends.espeak.os.system",
    ),
)
words = st.text("abcxyz_0123456789.-", min_size=1, max_size=6)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words.map("k{}".format), inner, max_size=3),
    max_leaves=8,
)


def flow(value: object) -> str:
    """A value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow, value)) + "]"
    return (
        f"'{value}'" if isinstance(value, str) else {None: "null", True: "true", False: "false"}.get(value, str(value))
    )


# How a value with a tag may stand in a file: as a value, in a list, in a key, behind an alias, merged, in a document.
HOLDERS = (
    "a: {0}\n",
    "a: [1, {0}]\n",
    "a:\n  - b:\n      - {0}\n",
    "a: {{b: {0}}}\n",
    "? {0}\n: 1\n",
    "a: {{? {0} : 1}}\n",
    "a: &x {0}\nb: *x\n",
    "a:\n  <<: {0}\n  b: 1\n",
    "a: 1\n---\nb: {0}\n",
    "# nothing\na: |\n  {0}\nb: {0}\n",
    "a: &x\n  b: {0}\nc: [*x, *x]\n",
)


@settings(max_examples=examples(40), deadline=None)
@given(tag=st.sampled_from(FOREIGN), holder=st.sampled_from(HOLDERS), value=plain_values, before=plain_values)
@example(tag="!apply:os.getcwd", holder=HOLDERS[0], value=[], before=None)
def test_a_foreign_tag_is_found_wherever_it_stands(tag, holder, value, before):
    first = f"first: {flow(before)}\n"
    with pytest.raises(ConfigError) as caught:
        refuse_foreign_tags(first + holder.format(f"{tag} {flow(value)}"), "model.yaml")
    assert caught.value.problem
    assert caught.value.mend


@settings(max_examples=examples(40), deadline=None)
@given(values=st.dictionaries(words.map("k{}".format), plain_values, min_size=1, max_size=4))
def test_plain_values_are_let_through_and_come_back(values):
    text = "".join(f"{key}: {flow(value)}\n" for key, value in values.items())
    refuse_foreign_tags(text, "model.yaml")
    assert plain(text) == values


LINES = (
    "a: ",
    "  b: ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&x ",
    "*x",
    "!new:es4r_toolkit.lobes.",
    "StyleFuser",
    "MelDownsampler",
)
PIECES = (
    *LINES,
    *FOREIGN,
    "\n",
    "\n",
    " ",
    "? ",
    ": ",
    "<<: ",
    "|",
    ">",
    "'",
    '"',
    "%TAG !e! !apply:\n",
    "---\n",
    "1",
    "#",
)


@settings(max_examples=examples(40), deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=15))
def test_no_mixture_of_pieces_reaches_beyond_the_package(pieces):
    build_what_is_let_through("".join(pieces).encode("utf-8", "replace"))
