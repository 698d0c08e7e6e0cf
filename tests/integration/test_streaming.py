"""Replies as they come about: heard before they are whole, broken off at once, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from es4r_toolkit.cancelling import end_if_cancelled
from es4r_toolkit.dialogue import LISTENER, SPEAKER, Dialogue, Turn
from es4r_toolkit.errors import BackendError, DialogueError
from es4r_toolkit.inference import (
    AudioChunk,
    EmpathyResponder,
    End,
    ReplyStream,
    Strategy,
    TextDelta,
    Timings,
    Transcript,
)
from es4r_toolkit.inference.reply import Reply, WholeDialogue
from es4r_toolkit.protocols import NEUTRAL

pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")
RATE = 16000
AT_ONCE = 0.1  # seconds within which a reply that is broken off has ended
STEP = 0.02


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory) -> Dialogue:
    turns = []
    for index, words in enumerate(("I lost my job.", "That is hard.", "I do not know what to do.")):
        path = tmp_path_factory.mktemp("turns") / f"{index}.wav"
        soundfile.write(path, tone(index), RATE)
        turns.append(Turn(LISTENER if index % 2 else SPEAKER, words, path))
    return Dialogue("job", tuple(turns))


def tone(index: int) -> np.ndarray:
    time = np.arange(int(1.5 * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * (120 + 20 * index) * partial * time) / partial for partial in range(1, 9))
    return 0.1 * sound * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))


class SlowLayer(nn.Module):
    def forward(self, sound: Tensor) -> Tensor:
        time.sleep(STEP)
        return sound + 0.001


class SlowVoice(nn.Module):
    """A voice of a hundred layers, two seconds a sentence."""

    sample_rate, style_dim, honours = 8000, None, frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(SlowLayer() for _ in range(100)))

    def synthesize(self, text: str, style: Tensor | None = None, prosody=NEUTRAL) -> Tensor:
        return self.layers(torch.zeros(800))

    def stream(self, text: str, style: Tensor | None = None, prosody=NEUTRAL) -> Iterator[Tensor]:
        yield self.synthesize(text)


class BrokenVoice(SlowVoice):
    def synthesize(self, text: str, style: Tensor | None = None, prosody=NEUTRAL) -> Tensor:
        raise BackendError("voice", "has a cold", "wait")


@pytest.fixture
def nothing_left():
    """Whatever a test does, it leaves no thread behind."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def unhurried(responder, monkeypatch) -> None:
    """A language model that takes its time over each token."""
    llm, write = responder.pipeline.generation.llm, responder.pipeline.generation.llm.stream

    def stream(*arguments, **options) -> Iterator[int]:
        for token in write(*arguments, **options):
            time.sleep(STEP)
            yield token

    monkeypatch.setattr(llm, "stream", stream)


def test_events_tell_the_whole_reply_in_order(responder, dialogue):
    events = list(responder.stream(dialogue))
    whole = responder.respond(dialogue)
    kinds = [type(event) for event in events]
    assert kinds[:4] == [Transcript, Transcript, Transcript, Strategy]
    assert kinds[-2:] == [Timings, End]
    assert [event.text for event in events[:3]] == [turn.text for turn in dialogue.history]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == whole.text
    chunks = [event for event in events if isinstance(event, AudioChunk)]
    assert " ".join(chunk.text for chunk in chunks) == whole.text
    response = events[-1].response
    assert (response.text, response.plan) == (whole.text, whole.plan)
    torch.testing.assert_close(response.waveform, torch.cat([chunk.waveform for chunk in chunks]))
    spoken = responder.pipeline.synthesis.stream(whole.text, whole.plan)
    torch.testing.assert_close(response.waveform, torch.cat(list(spoken)))


def test_the_first_sentence_is_heard_before_the_last_word_is_written(responder, dialogue, unhurried):
    kinds = [type(event) for event in responder.stream(dialogue)]
    last_word = len(kinds) - 1 - kinds[::-1].index(TextDelta)
    assert kinds.index(AudioChunk) < last_word - 3


def test_clauses_are_heard_earlier_than_sentences(responder, dialogue):
    by = {unit: list(responder.stream(dialogue, unit=unit)) for unit in ("sentence", "clause")}
    pieces = {unit: [one.text for one in events if isinstance(one, AudioChunk)] for unit, events in by.items()}
    assert " ".join(pieces["clause"]) == " ".join(pieces["sentence"])
    assert len(pieces["clause"]) >= len(pieces["sentence"])


def test_segments_are_contiguous(responder, dialogue):
    started = time.perf_counter()
    events = list(responder.stream(dialogue))
    took = time.perf_counter() - started
    timings = events[-2]
    order = ["decoding", "recognition", "understanding", "first_token", "first_sentence", "first_audio", "rest"]
    assert list(timings.segments) == order
    assert sum(timings.segments.values()) <= took
    assert sum(timings.segments.values()) > took - 0.3
    assert timings.to_first_audio == pytest.approx(sum(timings.segments.values()) - timings.segments["rest"])


@pytest.mark.parametrize("moment", [Strategy, TextDelta, AudioChunk])
def test_a_reply_broken_off_while_it_is_written_ends_at_once(responder, dialogue, unhurried, moment):
    with responder.stream(dialogue) as events:
        next(event for event in events if isinstance(event, moment))
        assert took(events.cancel) < AT_ONCE
        assert events.cancelled
        assert list(events) == []


def test_a_reply_broken_off_in_the_middle_of_a_sentence_ends_at_once(responder, dialogue):
    """The voice is stopped between two layers."""
    events = responder.with_voice(SlowVoice()).stream(dialogue)
    next(event for event in events if isinstance(event, TextDelta))
    time.sleep(10 * STEP)
    assert took(events.cancel) < AT_ONCE


def test_a_reply_broken_off_while_the_context_is_read_ends_at_once(responder, dialogue, monkeypatch):
    layers = responder.pipeline.generation.llm.model.base_model.layers
    slow = layers[0].self_attn.q_proj
    forward = slow.forward
    begun = threading.Event()

    def crawl(*arguments: Tensor) -> Tensor:
        begun.set()
        time.sleep(STEP)
        return forward(*arguments)

    monkeypatch.setattr(slow, "forward", crawl)
    events = responder.stream(dialogue)
    begun.wait(10)
    assert took(events.cancel) < AT_ONCE
    assert not [event for event in events if isinstance(event, TextDelta)]


def took(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def test_who_waits_for_the_next_event_is_woken(responder, dialogue):
    events = responder.with_voice(SlowVoice()).stream(dialogue)
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(events))
    reader.start()
    time.sleep(0.3)
    events.cancel()
    reader.join(5)
    assert not reader.is_alive()
    assert not any(isinstance(event, End) for event in seen)


def test_a_block_that_is_left_ends_the_reply(responder, dialogue):
    with responder.with_voice(SlowVoice()).stream(dialogue) as events:
        next(events)
    assert events.cancelled


def test_a_voice_that_fails_is_told_to_the_reader(responder, dialogue):
    events = responder.with_voice(BrokenVoice()).stream(dialogue)
    with pytest.raises(BackendError, match="voice: has a cold; wait"):
        list(events)
    assert list(events) == []


def test_a_reply_without_a_word_is_refused_as_the_models_doing(responder, dialogue, monkeypatch):
    blank = responder.pipeline.generation.render.plain(" ")
    monkeypatch.setattr(responder.pipeline.generation.llm, "stream", lambda *_, **__: iter(blank))
    with pytest.raises(BackendError, match="the reply: holds no word; train the model longer"):
        list(responder.stream(dialogue))


def test_a_reply_that_was_cut_off_says_so_however_it_was_asked_for(responder, dialogue, monkeypatch):
    assert not responder.respond(dialogue).cut_off
    monkeypatch.setattr(responder.pipeline.generation, "max_new_tokens", 3)
    *_, end = responder.stream(dialogue)
    assert end.response.cut_off
    assert responder.respond(dialogue).as_dict()["cut_off"]


def test_an_unknown_option_is_told_to_the_reader(responder, dialogue):
    with pytest.raises(TypeError, match="warmth"):
        list(responder.stream(dialogue, warmth=3))


def test_after_a_reply_was_broken_off_the_next_is_as_ever(responder, dialogue, unhurried):
    with responder.stream(dialogue) as events:
        next(event for event in events if isinstance(event, TextDelta))
    ended = [event for event in responder.stream(dialogue) if isinstance(event, End)]
    assert ended[0].response.text == responder.respond(dialogue).text


def test_who_says_something_interrupts_the_reply(responder, unhurried):
    """The history holds what of the reply was given out, and no more."""
    talk = responder.conversation()
    first = talk.stream((torch.from_numpy(tone(0)), RATE), "I lost my job.")
    heard = next(event for event in first if isinstance(event, AudioChunk))
    second = talk.stream((torch.from_numpy(tone(1)), RATE), "Wait, listen.")
    assert first.cancelled
    reply = list(second)[-1].response
    assert [turn.text for turn in talk.turns] == ["I lost my job.", heard.text, "Wait, listen.", reply.text]
    assert [turn.role for turn in talk.turns] == [SPEAKER, LISTENER, SPEAKER, LISTENER]
    assert heard.text != first._work.text.whole


def test_a_reply_of_which_nothing_was_heard_is_not_in_the_history(responder):
    talk = responder.conversation()
    talk.stream((torch.from_numpy(tone(0)), RATE), "I lost my job.")
    talk.listen((torch.from_numpy(tone(1)), RATE), "Hello?")
    assert [turn.role for turn in talk.turns] in ([SPEAKER], [SPEAKER, SPEAKER])
    assert talk.turns[-1].text == "Hello?"


class SlowRecognizer:
    """Takes its time over every recording, as long as nobody calls it off."""

    name = identity = "slow"
    sample_rate = RATE

    def __init__(self) -> None:
        self.begun = threading.Event()

    def transcribe(self, waveform: Tensor) -> str:
        self.begun.set()
        for _ in range(100):
            time.sleep(STEP)
            end_if_cancelled()
        return "I was heard."


@pytest.fixture
def slow(responder, monkeypatch) -> SlowRecognizer:
    recognizer = SlowRecognizer()
    monkeypatch.setattr(responder.pipeline, "recognizer", recognizer)
    return recognizer


def test_who_brings_the_words_waits_for_nobodys_recognition(responder, slow):
    listening = responder.conversation().stream((torch.from_numpy(tone(1)), RATE))
    assert slow.begun.wait(10)
    talk = responder.conversation()
    assert took(lambda: talk.respond((torch.from_numpy(tone(2)), RATE), "I lost my job.")) < 1.5
    reply = talk.stream((torch.from_numpy(tone(0)), RATE), "It was my first one.")
    next(event for event in reply if isinstance(event, AudioChunk))
    assert took(talk.interrupt) < AT_ONCE * 3  # what was given out is heard too
    assert took(listening.cancel) < AT_ONCE


def test_who_is_interrupted_before_being_heard_is_heard_with_the_next_turn(responder, slow):
    talk = responder.conversation()
    talk.stream((torch.from_numpy(tone(0)), RATE))
    assert slow.begun.wait(10)
    talk.interrupt()
    assert len(talk) == 0
    slow.transcribe = lambda _: "So I was sitting there."
    talk.respond((torch.from_numpy(tone(1)), RATE), "And then he left.")
    assert [turn.text for turn in talk.turns][:2] == ["So I was sitting there.", "And then he left."]


def test_who_waits_for_a_reply_is_told_of_an_interruption(responder, unhurried):
    talk = responder.conversation()
    told = []

    def ask() -> None:
        with pytest.raises(DialogueError, match="the reply: was interrupted"):
            talk.respond((torch.from_numpy(tone(0)), RATE), "I lost my job.")
        told.append(True)

    waiting = threading.Thread(target=ask)
    waiting.start()
    time.sleep(0.3)
    talk.interrupt()
    waiting.join(5)
    assert told == [True]


def test_a_callback_may_cancel_what_has_ended(responder, dialogue):
    work = Reply(responder.model, WholeDialogue(responder.model, dialogue))
    assert isinstance(list(ReplyStream(work, lambda stream: stream.cancel()))[-1], End)


def test_a_process_that_ends_in_the_middle_of_a_reply_ends_well(dialogue):
    script = f"""
from pathlib import Path
from es4r_toolkit.dialogue import Turn
from es4r_toolkit.inference import EmpathyResponder
turn = Path({str(dialogue.history[0].audio)!r})
stream = EmpathyResponder.from_hparams().conversation().stream(turn, "I lost my job.")
print(type(next(stream)).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "Transcript\n"), done.stderr


def test_several_threads_get_what_each_would_get_alone(responder, dialogue):
    shorter = Dialogue("short", dialogue.history[:1])
    alone = {one.id: responder.respond(one) for one in (dialogue, shorter)}
    failures, rounds = [], 4

    def ask(asked: Dialogue) -> None:
        for _ in range(rounds):
            response = list(responder.stream(asked))[-1].response
            if response.text != alone[asked.id].text or response.plan != alone[asked.id].plan:
                failures.append(response)

    threads = [threading.Thread(target=ask, args=(one,)) for one in (dialogue, shorter) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_bfloat16_streams_what_it_answers(dialogue):
    responder = EmpathyResponder.from_hparams(run_opts={"precision": "bf16"})
    assert list(responder.stream(dialogue))[-1].response.text == responder.respond(dialogue).text
