"""Turn by turn: what was heard is not heard again, and what is answered does not change by it."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import soundfile
import torch

from es4r_toolkit.backends.espeak import EspeakSynthesizer
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.dialogue import LISTENER, SPEAKER, Dialogue, Turn
from es4r_toolkit.errors import AudioError, BackendError, ConfigError, ContextError, DialogueError
from es4r_toolkit.inference import EmpathyResponder, End
from es4r_toolkit.inference.model import SharedModel
from es4r_toolkit.inference.response import Clock
from es4r_toolkit.inference.turns import TurnMemory
from es4r_toolkit.lobes import EnergyStrategySelector, StyleFuser
from es4r_toolkit.protocols import NEUTRAL
from es4r_toolkit.stages.synthesis import EmpatheticSynthesis

pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")
RATE = 16000
STRATEGIES = {"comfort": {"to": 0.0, "rate": 0.85}, "encourage": {"from": 0.0}}


@pytest.fixture
def dialogue(tmp_path) -> Dialogue:
    turns = []
    for index, words in enumerate(("I lost my job.", "That is hard.", "I do not know what to do.")):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, tone(index), RATE)
        turns.append(Turn(LISTENER if index % 2 else SPEAKER, words, path))
    return Dialogue("job", tuple(turns))


def tone(index: int, seconds: float = 1.5) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    sound = sum(np.sin(2 * np.pi * (120 + 20 * (index % 5)) * partial * time) / partial for partial in range(1, 9))
    return (0.1 * sound * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def said(index: int) -> tuple[torch.Tensor, int]:
    return torch.from_numpy(tone(index)), RATE


def test_a_conversation_answers_as_the_dialogue_does(responder, dialogue):
    talk = responder.conversation()
    for turn in dialogue.history[:-1]:
        talk.listen(turn)
    reply = talk.respond(dialogue.history[-1])
    whole = responder.respond(dialogue)
    assert reply.text == whole.text
    assert reply.plan.energies == pytest.approx(whole.plan.energies, rel=1e-6)
    assert reply.transcripts == whole.transcripts
    assert [turn.role for turn in talk.turns] == [SPEAKER, LISTENER, SPEAKER, LISTENER]
    assert talk.turns[-1].text == reply.text


@pytest.mark.parametrize("turns", [6])
def test_each_turn_of_a_conversation_is_answered_as_anew(responder, turns):
    """Kept turns and the kept prefix against a responder that has heard nothing yet."""
    talk = responder.conversation()
    for index in range(turns):
        before = [*talk.turns]
        reply = talk.respond(said(index), f"This is turn {index}.")
        fresh = SharedModel(responder.pipeline)
        heard = talk._turns[: len(before) + 1]
        batch = fresh.listen([heard], Clock())
        with torch.no_grad():
            again = responder.pipeline.generate(batch)
        assert reply.text == again[0], f"turn {index}"
    assert len(talk) == 2 * turns


def test_the_language_model_reads_what_is_new(responder):
    """The reply before, the new turn, a position a turn, and what closes the prompt; the rest is known."""
    talk = responder.conversation()
    read, llm = [], responder.pipeline.generation.llm.model
    hook = llm.register_forward_pre_hook(
        lambda _, __, given: read.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    for index in range(4):
        talk.respond(said(index), f"This is turn {index}.")
        prompt = responder.pipeline.generation.render(talk.turns[:-1])
        whole = read[0]
        new = sum(map(len, prompt.turns[-2:])) + len(prompt.turns) + len(prompt.suffix)
        assert whole == (new if index else new + len(prompt.prefix))
        read.clear()
    hook.remove()


def test_a_turn_heard_once_is_looked_up(responder, dialogue, monkeypatch):
    model = SharedModel(responder.pipeline)
    first = model.hear(dialogue.history, [None] * 3, Clock(), "job")
    monkeypatch.setattr(type(responder.pipeline), "hear", None)
    again = model.hear(dialogue.history, [None] * 3, Clock(), "job")
    assert all(one.features is other.features for one, other in zip(first, again))


def test_a_recording_that_was_written_anew_is_heard_anew(responder, dialogue):
    model = SharedModel(responder.pipeline)
    (before,) = model.hear(dialogue.history[:1], [None], Clock(), "job")
    soundfile.write(dialogue.history[0].audio, tone(3, 2.0), RATE)
    (after,) = model.hear(dialogue.history[:1], [None], Clock(), "job")
    assert (before.seconds, after.seconds) == (1.5, 2.0)


def test_a_store_gives_another_process_what_was_heard(responder, dialogue, tmp_path, monkeypatch):
    """Style vectors too, of a voice that has them; here of its loudness."""

    class StyledVoice(EspeakSynthesizer):
        style_dim, style_settings, asked = 2, {"kind": "loudness"}, 0

        def style(self, waveform, sample_rate):
            StyledVoice.asked += 1
            if len(waveform) > 2 * sample_rate:
                raise BackendError("style", "is not for long turns", "")
            return torch.stack([waveform.abs().mean(), waveform.abs().max()])

        def synthesize(self, text, style=None, prosody=NEUTRAL):
            self.given = style
            return super().synthesize(text, None, prosody)

    soundfile.write(dialogue.history[1].audio, tone(1, 2.5), RATE)
    pipeline = responder.with_voice(StyledVoice()).pipeline
    plain = EmpathyResponder(pipeline).respond(dialogue)
    style = pipeline.synthesis.voice.given
    first = EmpathyResponder(pipeline, feature_store=tmp_path / "store").respond(dialogue)
    asked = StyledVoice.asked
    monkeypatch.setattr(type(pipeline.understanding), "features", None)
    second = EmpathyResponder(pipeline, feature_store=tmp_path / "store").respond(dialogue)
    assert StyledVoice.asked == asked == 6
    assert first.text == second.text == plain.text
    assert torch.equal(pipeline.synthesis.voice.given, style)
    assert second.plan.style_weights[1] == 0


def test_the_words_of_a_remembered_recording_are_those_of_the_turn(responder, dialogue):
    model = SharedModel(responder.pipeline)
    turn = dialogue.history[0]
    model.hear([turn], [None], Clock(), "job")
    (other,) = model.hear([Turn(LISTENER, "Other words.", turn.audio)], [None], Clock(), "job")
    assert (other.turn.role, other.turn.text) == (LISTENER, "Other words.")


def test_memory_forgets_what_was_not_asked_for_longest(responder, dialogue):
    memory = TurnMemory(seconds=3.2)
    heard = [responder.hear(turn) for turn in dialogue.history]
    for place in (0, 1):
        memory.keep(place, heard[place])
    assert memory.get(0, dialogue.history[0]) is not None
    memory.keep(2, heard[2])
    assert [memory.get(place, dialogue.history[place]) is None for place in range(3)] == [False, True, False]


@pytest.mark.parametrize("preset", ["paper", "plus"])
@pytest.mark.parametrize("placement", ["replace", "inject"])
@pytest.mark.parametrize("positions", ["frames", "turns"])
def test_turns_heard_one_by_one_give_the_context_of_the_whole(make_pipeline, preset, placement, positions):
    pipeline = make_pipeline(preset, placement=placement, positions=positions)
    pipeline.synthesis = EmpatheticSynthesis(EspeakSynthesizer(), EnergyStrategySelector(STRATEGIES), StyleFuser())
    pipeline = pipeline.double()
    histories, waves = [], []
    for offset, lengths in ((0, [3200, 4800, 2500]), (5, [2600])):
        roles = [SPEAKER if place % 2 == 0 else LISTENER for place in range(len(lengths))]
        histories.append(tuple(Turn(role, f"It is hard. {place}") for place, role in enumerate(roles)))
        waves.append([torch.from_numpy(tone(offset + i)[:count]).double() for i, count in enumerate(lengths)])
    heard = [[pipeline.hear(*one) for one in zip(*pair)] for pair in zip(histories, waves)]
    assert all((turn.frames is not None) == (preset == "paper") for turns in heard for turn in turns)
    by_turn = DialogueBatch.of_heard(["a", "b"], heard)
    whole = DialogueBatch.of([Dialogue(name, turns) for name, turns in zip("ab", histories)], waves)
    with torch.no_grad():
        torch.testing.assert_close(pipeline.context(by_turn).embeds, pipeline.context(whole).embeds)
    for one, other in zip(pipeline.plan(by_turn), pipeline.plan(whole)):
        assert one.energies == pytest.approx(other.energies)
        assert one.strategy.name == other.strategy.name


def test_a_window_that_is_full_drops_the_same_turns(make_pipeline):
    """The tiny encoder's window holds a second of downsampled frames: four of them."""
    pipeline = make_pipeline("paper")
    pipeline.synthesis = EmpatheticSynthesis(EspeakSynthesizer(), EnergyStrategySelector(STRATEGIES), StyleFuser())
    pipeline = pipeline.double()
    waves = [torch.from_numpy(tone(place, 1.3)).double() for place in range(4)]
    history = tuple(Turn(SPEAKER, f"It is hard. {place}") for place in range(4))
    heard = [pipeline.hear(turn, wave) for turn, wave in zip(history, waves)]
    with torch.no_grad():
        kept = pipeline.context(DialogueBatch.of_heard(["a"], [heard]))
        whole = pipeline.context(DialogueBatch.of([Dialogue("a", history)], [waves]))
    assert int(kept.heard.dropped[0]) == int(whole.heard.dropped[0]) > 0
    torch.testing.assert_close(kept.embeds, whole.embeds)


def test_a_batch_is_answered_as_each_alone(responder, demo_folder):
    dialogues = read_manifest(demo_folder / "dialogues.jsonl").dialogues
    together = responder.respond_batch(dialogues)
    for dialogue, response in zip(dialogues, together):
        alone = EmpathyResponder(responder.pipeline).respond(dialogue)
        assert response.text == alone.text
        assert response.transcripts == alone.transcripts
        assert response.plan.strategy.name == alone.plan.strategy.name
        torch.testing.assert_close(response.waveform, alone.waveform)


def test_a_forced_strategy_is_spoken_and_the_energies_still_told(responder, dialogue):
    free = responder.respond(dialogue)
    other = next(name for name in ("comfort", "encourage") if name != free.plan.strategy.name)
    forced = responder.respond(dialogue, strategy=other)
    assert forced.plan.strategy.name == other
    assert forced.plan.strategy.change == free.plan.strategy.change
    assert forced.text == free.text
    assert not torch.equal(forced.waveform[:1000], free.waveform[:1000])
    with pytest.raises(ConfigError, match=r"strategy: got .shout.; must be one of comfort, neutral, encourage"):
        responder.respond(dialogue, strategy="shout")


def test_another_voice_shares_the_weights(responder, dialogue):
    other = responder.with_voice(EspeakSynthesizer("en-us+m3"))
    assert other.pipeline.generation is responder.pipeline.generation
    one, two = responder.respond(dialogue), other.respond(dialogue)
    assert one.text == two.text
    assert not torch.equal(one.waveform, two.waveform)


def test_an_explanation_covers_the_text_and_sums_to_one(responder, dialogue):
    why = responder.respond(dialogue, explained=True).explanation
    assert why.attention.shape == (3, len(why.tokens))
    torch.testing.assert_close(why.attention.sum(dim=1), torch.ones(3))
    assert why.turn_of_position == [0, 1, 2]
    assert sorted(set(why.turn_of_token)) == [0, 1, 2]
    assert responder.respond(dialogue).explanation is None


def test_what_cannot_be_heard_leaves_the_conversation_as_it_was(responder, tmp_path):
    talk = responder.conversation()
    first = talk.respond(said(0), "I lost my job.")
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF not at all")
    with pytest.raises(AudioError, match="is not audio that can be read"):
        talk.respond(bad, "Hello.")
    with pytest.raises(AudioError, match="NaN"):
        talk.respond((torch.full((RATE,), torch.nan), RATE), "Hello.")
    assert [turn.text for turn in talk.turns] == ["I lost my job.", first.text]
    assert talk.respond(said(1), "It was my first one.").text


@pytest.mark.parametrize(
    "options",
    [{"strategy": "shout"}, {"temperature": -1}, {"warmth": 3}, {"unit": "page"}],
    ids=["strategy", "temperature", "unknown", "unit"],
)
def test_an_option_that_is_refused_leaves_the_conversation_as_it_was(responder, options):
    talk = responder.conversation()
    talk.respond(said(0), "I lost my job.")
    with pytest.raises((ConfigError, TypeError)):
        talk.respond(said(1), "It was my first one.", **options)
    assert len(talk) == 2


def test_a_turn_that_no_model_can_read_costs_the_conversation_nothing(responder):
    talk = responder.conversation()
    for index in range(3):
        talk.respond(said(index), f"This is turn {index}.")
    with pytest.raises(ContextError):
        talk.respond(said(3), "word " * 20_000)
    with pytest.raises(DialogueError, match="the conversation, newest turn: takes 3500 frames"):
        talk.respond((torch.from_numpy(tone(0, 280.0)), RATE), "A speech.")
    assert (len(talk), talk.forgotten) == (6, 0)


def test_a_tiny_temperature_is_greedy(responder, dialogue):
    assert responder.respond(dialogue, temperature=1e-40).text == responder.respond(dialogue, temperature=0).text


def test_one_recording_in_the_place_of_another_is_heard_anew_whatever_its_date_says(responder, tmp_path):
    turn = tmp_path / "turn.wav"
    heard = []
    for index in range(2):
        copy = tmp_path / f"{index}.wav"
        soundfile.write(copy, tone(index), RATE)
        os.utime(copy, (1e9, 1e9))
        shutil.copy2(copy, turn)
        heard.append(responder.hear(Turn(SPEAKER, "Hello.", turn)))
    assert not torch.equal(heard[0].features, heard[1].features)


def test_what_is_no_waveform_is_named(responder):
    talk = responder.conversation()
    for bad, fault in (((np.zeros((2, 800)), RATE), AudioError), ((np.zeros(800), "16000"), ConfigError)):
        with pytest.raises(fault):
            talk.respond(bad, "Hello.")
    with pytest.raises(AudioError, match="NaN"):
        responder.hear(Turn(SPEAKER, "Hello."), torch.full((800,), torch.nan))
    assert talk.respond((tone(0), RATE), "I lost my job.").text


def test_a_turn_brings_its_role_and_takes_the_words_that_are_given(responder, dialogue):
    talk = responder.conversation()
    talk.listen(dialogue.history[1], "Oh no.")
    assert (talk.turns[0].role, talk.turns[0].text) == (LISTENER, "Oh no.")


def test_unknown_devices_and_options_are_named():
    with pytest.raises(ConfigError, match=r"run_opts: got \['threads'\]; must be of device, feature_store, precision"):
        EmpathyResponder.from_hparams(run_opts={"threads": 2})
    with pytest.raises(ConfigError, match="device: is 'cudda', where nothing can run"):
        EmpathyResponder.from_hparams(run_opts={"device": "cudda"})


def test_a_turn_without_words_or_sound_is_named(responder):
    talk = responder.conversation()
    with pytest.raises(AudioError, match="a turn of the speaker: has no recording"):
        talk.listen(Turn(SPEAKER, "Only words."))
    with pytest.raises(DialogueError, match="has no turn"):
        responder.respond([])
    with pytest.raises(ConfigError, match="role"):
        talk.listen(said(0), "Hello.", role="god")


def test_a_conversation_past_the_language_model_forgets_its_oldest_turns(responder, caplog):
    """2,048 positions, of which the reply keeps 48."""
    talk = responder.conversation()
    words = "I do not know what to do about it and I am tired. " * 12
    forgotten = []
    for index in range(9):
        forgotten.append(talk.respond(said(index % 3), f"{index}. {words}").forgotten_turns)
    assert forgotten[0] == 0
    assert forgotten[-1] > 0
    assert forgotten == sorted(forgotten)
    assert talk.forgotten == forgotten[-1]
    assert "oldest turns are forgotten" in caplog.text
    assert talk.turns[-2].text.startswith("8. ")


def test_a_single_turn_longer_than_the_language_model_is_refused_by_name(responder):
    talk = responder.conversation()
    with pytest.raises(Exception, match="positions and 48 for the reply do not fit the language model's 2048"):
        talk.respond(said(0), "I do not know what to do about it. " * 400)


def test_events_of_a_conversation_come_in_order_and_add_up(responder, dialogue):
    with responder.conversation().stream(dialogue.history[0]) as stream:
        events = list(stream)
    kinds = [type(event).__name__ for event in events]
    assert kinds[:2] == ["Transcript", "Strategy"]
    assert kinds[-2:] == ["Timings", "End"]
    end = events[-1]
    assert isinstance(end, End)
    assert "".join(event.text for event in events if hasattr(event, "text") and "Delta" in type(event).__name__) == (
        end.response.text
    )
