"""However a reply's text arrives, the same is shown and the same pieces are spoken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from es4r_toolkit.backends.phonemes import sentences
from es4r_toolkit.inference.pieces import FEWEST_WORDS, GrowingText, Pieces

TEXTS = st.text(st.sampled_from("ab 1.!?…,;:\n。、 é😀"), max_size=60)


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends)]


@given(TEXTS, st.lists(st.integers(0, 60)))
def test_the_pieces_of_a_text_in_parts_are_its_sentences(text, places):
    pieces = Pieces()
    found = [piece for part in cut(text, places) for piece in pieces.add(part)]
    assert [*found, *pieces.rest()] == sentences(text)


@given(TEXTS, st.lists(st.integers(0, 60)))
def test_clauses_do_not_depend_on_how_the_text_arrives(text, places):
    whole, parts = Pieces("clause"), Pieces("clause")
    at_once = [*whole.add(text), *whole.rest()]
    assert [piece for part in cut(text, places) for piece in parts.add(part)] + parts.rest() == at_once


@given(TEXTS)
def test_clauses_lose_no_letter(text):
    pieces = Pieces("clause")
    found = "".join([*pieces.add(text), *pieces.rest()])
    assert [sign for sign in found if sign.isalnum()] == [sign for sign in text if sign.isalnum()]


def test_a_clause_of_few_words_waits_for_the_next():
    pieces = Pieces("clause")
    assert pieces.add("Well, I am here, and I listen. ") == ["Well, I am here,", "and I listen."]
    assert len(["Well,"]) < FEWEST_WORDS


def test_an_abbreviated_number_is_not_the_end_of_a_sentence():
    pieces = Pieces()
    assert pieces.add("It takes 3.") == []
    assert pieces.add("5 hours. ") == ["It takes 3.5 hours."]


@given(st.text(max_size=30))
def test_bytes_as_tokens_add_up_to_the_text(text):
    """A tokenizer of bytes cuts characters in two; nothing of a broken one is shown."""
    expected = text.encode(errors="replace").decode().strip()
    growing = GrowingText(lambda ids: bytes(ids).decode(errors="replace").strip())
    parts = [growing.add(byte) for byte in expected.encode()]
    assert "".join([*parts, growing.rest()]) == expected
    assert "\ufffd" in expected or not any("\ufffd" in part for part in parts)
