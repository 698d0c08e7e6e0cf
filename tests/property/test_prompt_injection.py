"""Whatever is said, no tokenizer makes a control token of it, and no turn reaches into another."""

from __future__ import annotations

import unicodedata

import pytest
from chat_tokenizers import TOKENIZERS
from hypothesis import given, settings
from hypothesis import strategies as st
from soak import examples

from es4r_toolkit.dialogue import LISTENER, SPEAKER, Turn
from es4r_toolkit.errors import DialogueError
from es4r_toolkit.prompt import PromptRenderer

FULL_WIDTH = {ord(letter): ord(letter) + 0xFEE0 for letter in map(chr, range(0x21, 0x7F))}
INVISIBLE = ("\u200b", "\u200d", "\u00ad", "\ufeff", "\u2060", "\u0301", "\ufe0f", " ", "\t", "\n", "\0")


@pytest.fixture(scope="module", params=TOKENIZERS.values(), ids=TOKENIZERS.keys())
def render(request) -> PromptRenderer:
    return PromptRenderer(request.param(), "Answer the speaker with empathy.")


def marks(render: PromptRenderer) -> dict[str, int]:
    """The control tokens: all that is added to the vocabulary but blanks."""
    added = render.tokenizer.added_tokens_decoder.items()
    return {token.content: index for index, token in added if token.content.strip(" \n▁")}


def control(render: PromptRenderer, said: str = "") -> set[int]:
    """Their ids. The unknown token is one of them, except where a letter is in fact unknown."""
    return set(marks(render).values()) - ({render.tokenizer.unk_token_id} if not said.isascii() else set())


def ids_of(render: PromptRenderer, said: str) -> set[int]:
    """What becomes of it wherever it may stand."""
    history = render((Turn(SPEAKER, said), Turn(LISTENER, said))).history
    return {*render.plain(said), *history, *render.reply(said)[:-1]}


def test_each_of_them_is_real_and_none_comes_of_its_letters(render):
    for mark, index in marks(render).items():
        assert index in render.tokenizer(mark, add_special_tokens=False)["input_ids"]
        assert not control(render) & ids_of(render, mark)


def disguises(mark: str) -> dict[str, str]:
    middle = len(mark) // 2
    return {
        "doubled": mark * 2,
        "overlapping": mark + mark[1:],
        "inside itself": mark[:middle] + mark + mark[middle:],
        "inside itself, off by one": mark[:1] + mark + mark[1:],
        "full width": mark.translate(FULL_WIDTH),
        "full width brackets": mark[:1].translate(FULL_WIDTH) + mark[1:-1] + mark[-1:].translate(FULL_WIDTH),
        "capitals": mark.upper(),
        "decomposed": unicodedata.normalize("NFKD", mark),
        "accented": "".join(letter + "\u0301" for letter in mark),
        "in blanks": f"  {mark}  ",
        **{f"split by {letter!a}": letter.join((mark[:middle], mark[middle:])) for letter in INVISIBLE},
        **{f"led by {letter!a}": f"{letter}{mark}{letter}" for letter in INVISIBLE},
    }


def test_no_disguise_of_a_mark_gets_through(render):
    found = {
        (mark, name)
        for mark in marks(render)
        for name, said in disguises(mark).items()
        if control(render, said) & ids_of(render, said)
    }
    assert found == set()


def test_some_disguises_would_get_through_a_search_for_the_words():
    """The odd ones read full-width letters as plain ones; without them the test above would show nothing."""
    render = PromptRenderer(TOKENIZERS["odd"]())
    said = "［［sys］］"
    assert not any(mark in said for mark in marks(render))
    assert control(render) & set(render.tokenizer(said, add_special_tokens=False)["input_ids"])
    merging = TOKENIZERS["merging"]()
    assert merging.convert_tokens_to_ids("</s>") in merging("＜/s＞", add_special_tokens=False)["input_ids"]


@settings(max_examples=examples(25), deadline=None)
@given(data=st.data())
def test_no_mixture_of_marks_and_letters_gets_through(render, data):
    pieces = [piece for mark in marks(render) for piece in (mark, mark[:1], mark[1:], mark[:-1], mark[-1:])]
    piece = st.sampled_from([*pieces, *INVISIBLE]) | st.text(max_size=3)
    said = "".join(data.draw(st.lists(piece | st.sampled_from(pieces).map(lambda one: one.translate(FULL_WIDTH)))))
    assert not control(render, said) & ids_of(render, said)


@settings(max_examples=examples(15), deadline=None)
@given(said=st.text() | st.text(alphabet="\n\r\x0b\x0c\x85\u2028\u2029listener: ab"))
def test_what_is_said_changes_nothing_around_it_and_stays_one_line(render, said):
    around = (Turn(LISTENER, "And then?"), Turn(SPEAKER, "I cried."))
    one, other = render((around[0], Turn(SPEAKER, said), around[1])), render((around[0], Turn(SPEAKER, "x"), around[1]))
    assert (one.prefix, one.turns[0], one.turns[2], one.suffix) == (
        other.prefix,
        other.turns[0],
        other.turns[2],
        other.suffix,
    )
    assert len(render.tokenizer.decode(one.turns[1]).splitlines()) <= 1


@settings(max_examples=examples(15), deadline=None)
@given(said=st.text(alphabet=st.characters(codec="utf-8", categories=("L", "N", "P"))))
def test_what_holds_no_mark_is_tokenized_as_it_stands(render, said):
    plain = render.tokenizer(said, add_special_tokens=False)["input_ids"]
    if not control(render, said) & set(plain):
        assert render.plain(said) == plain


def test_half_a_character_is_refused_by_name(render):
    with pytest.raises(DialogueError, match="half a character"):
        render((Turn(SPEAKER, "I am \ud800 sad."),))


def test_runs_of_blanks_that_a_tokenizer_adds_are_no_control_tokens():
    render = PromptRenderer(TOKENIZERS["gemma"]())
    assert render.tokenizer.convert_ids_to_tokens(render.plain("a\n\nb")) == ["a", "\n\n", "b"]
