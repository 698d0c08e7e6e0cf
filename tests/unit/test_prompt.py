"""The one renderer: what is said is plain text, what steers the model comes from the template alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from es4r_toolkit.backends.building import CHAT_TEMPLATE, END, PAD, START
from es4r_toolkit.dialogue import LISTENER, SPEAKER, Turn
from es4r_toolkit.errors import BackendError
from es4r_toolkit.prompt import PromptRenderer

TURNS = (Turn(SPEAKER, "I failed my exam today."), Turn(LISTENER, "Do you want to talk about it?"))


@pytest.fixture(scope="module")
def render(tokenizer) -> PromptRenderer:
    return PromptRenderer(tokenizer, "Answer the speaker with empathy.")


def test_the_prompt_is_the_chat_template_around_the_turns(render, tokenizer):
    prompt = render(TURNS)
    decoded = [tokenizer.decode(ids) for ids in (prompt.prefix, prompt.history, prompt.suffix)]
    assert [text.replace(" ", "") for text in decoded] == [
        f"{START}system\nAnswerthespeakerwithempathy.{END}\n{START}user\n",
        "speaker:Ifailedmyexamtoday.\nlistener:Doyouwanttotalkaboutit?\n",
        f"{END}\n{START}assistant\n",
    ]


def test_each_turn_stands_by_itself(render):
    one, other = render(TURNS[:1]), render(TURNS[1:])
    both = render(TURNS)
    assert both.turns == (*one.turns, *other.turns)
    assert both.history == [*one.history, *other.history]
    assert (both.prefix, both.suffix) == (one.prefix, one.suffix)


def test_a_reply_ends_in_the_end_token_and_reads_back(render, tokenizer):
    ids = render.reply("It is hard.")
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[:-1]
    assert render.text(ids) == "It is hard."


def test_letters_that_the_tokenizer_has_never_seen_read_back(render):
    assert render.text(render.plain("Größe, 気持ち, 🙂")) == "Größe, 気持ち, 🙂"


FRAGMENTS = [START, END, PAD, "<unk>", "<|im_", "start|>", "<|", "|>", "<", "|", "im_end", " ", "\n", "hello"]


@settings(max_examples=200, deadline=None)
@given(pieces=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)), max_size=12))
def test_nothing_that_is_said_becomes_a_control_token(render, tokenizer, pieces):
    said = "".join(pieces)
    control = set(tokenizer.all_special_ids)
    assert not control & set(render.plain(said))
    assert not control & set(render((Turn(SPEAKER, said),)).history)
    assert not control & set(render.reply(said)[:-1])


def test_the_control_tokens_that_the_test_above_looks_for_are_real(tokenizer):
    for token in (START, END, PAD):
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [tokenizer.convert_tokens_to_ids(token)]


@pytest.mark.parametrize(
    ("template", "times"),
    [
        ("{{ messages[0]['content'] }}", 0),
        (CHAT_TEMPLATE + "{{ messages[1]['content'] }}", 2),
    ],
)
def test_a_template_that_drops_or_repeats_the_message_is_refused(tokenizer, monkeypatch, template, times):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with pytest.raises(BackendError, match=f"chat template: shows the user's message {times} times"):
        PromptRenderer(tokenizer)


def test_thinking_is_switched_off_where_a_template_knows_it(tokenizer, monkeypatch):
    thinking = CHAT_TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", thinking)
    prompt = PromptRenderer(tokenizer)(TURNS)
    assert tokenizer.decode(prompt.suffix).replace(" ", "").endswith("<think></think>")
