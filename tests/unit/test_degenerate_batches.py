"""Silence, replies without words and replies without end: a stated behaviour for each, and none in silence."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
import soundfile
import torch
from typer.testing import CliRunner

from es4r_toolkit.cli import app
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.dialogue import LISTENER, Turn
from es4r_toolkit.errors import ContextError, DialogueError
from es4r_toolkit.examining import examine
from es4r_toolkit.losses import response_cross_entropy, response_kl
from es4r_toolkit.stages.generation import EmpatheticGeneration, Written

LENGTHS = [[8000, 4800], [6400]]


def with_reply(batch: DialogueBatch, index: int, text: str) -> DialogueBatch:
    dialogues = list(batch.dialogues)
    dialogues[index] = replace(dialogues[index], response=Turn(LISTENER, text))
    return replace(batch, dialogues=dialogues)


@pytest.mark.parametrize("preset", ["paper", "plus"])
def test_a_batch_of_silence_has_finite_losses_and_gradients(cached_pipeline, make_batch, preset):
    """Zeros are frames like others, and what normalises them divides by none of their deviations."""
    pipeline, batch = cached_pipeline(preset), make_batch(LENGTHS)
    silent = replace(batch, waveforms=torch.zeros_like(batch.waveforms))

    def terms() -> dict[str, torch.Tensor]:
        paths = pipeline(silent)
        kl = response_kl(paths.speech, paths.text, paths.valid)
        return {"kl": kl, "loss": kl + response_cross_entropy(paths.speech, paths.targets, paths.valid)}

    try:
        found = examine({"": pipeline}, terms)
    finally:
        pipeline.zero_grad()
    assert found.is_finite, found.cause


def test_a_turn_that_is_nothing_but_padding_is_refused_by_name(make_batch):
    batch = make_batch([[1600], [1600]])
    with pytest.raises(DialogueError, match="1: turn 0 has no sample; leave the turn out"):
        DialogueBatch.of(batch.dialogues, [[torch.zeros(1600)], [torch.zeros(0)]])


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_response_is_nothing_to_learn_from(cached_pipeline, make_batch, text):
    batch = with_reply(make_batch(LENGTHS), 1, text)
    with pytest.raises(DialogueError, match="1: has no response to learn from"):
        cached_pipeline()(batch)


def test_a_response_beyond_the_language_models_positions_is_refused_by_name(cached_pipeline, make_batch, monkeypatch):
    """Rotary embeddings would go on without a word to positions that the model never saw."""
    pipeline, batch = cached_pipeline(), with_reply(make_batch(LENGTHS), 0, "It is hard. " * 20)
    before = int(pipeline.context(batch).valid[0].sum())
    tokens = len(pipeline.generation.render.reply(batch.dialogues[0].response.text))
    monkeypatch.setattr(pipeline.generation.llm, "max_positions", before + tokens)
    assert pipeline(batch).targets.shape[1] == tokens
    monkeypatch.setattr(pipeline.generation.llm, "max_positions", before + tokens - 1)
    with pytest.raises(ContextError, match=f"0: a context of {before} positions and a response of {tokens} tokens do"):
        pipeline(batch)


def test_a_generated_reply_that_is_cut_off_is_counted_in_the_log(cached_pipeline, make_batch, monkeypatch, caplog):
    pipeline, batch = cached_pipeline(), make_batch(LENGTHS)
    most = pipeline.generation.max_new_tokens
    monkeypatch.setattr(pipeline.generation.llm, "generate", lambda *_, **__: [[5] * most, [5] * (most - 1)])
    with caplog.at_level(logging.WARNING):
        written = pipeline.generation.write(pipeline.context(batch))
    assert [reply.cut_off for reply in written] == [True, False]
    assert f"1 of 2 replies are cut off at max_new_tokens, {most}" in caplog.text


def test_a_streamed_reply_that_is_cut_off_is_too(cached_pipeline, make_batch, monkeypatch, caplog):
    pipeline, batch = cached_pipeline(), make_batch(LENGTHS[:1])
    most, context = pipeline.generation.max_new_tokens, pipeline.context(batch)
    for length, cut in ((most - 1, False), (most, True)):
        monkeypatch.setattr(pipeline.generation.llm, "stream", lambda *_, length=length, **__: iter([5] * length))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert len(list(pipeline.generation.stream(context))) == length
        assert ("1 of 1 replies are cut off" in caplog.text) is cut


def test_a_reply_is_never_without_a_token(cached_pipeline, make_batch, monkeypatch):
    """Even of a model that wants to stop at once."""
    pipeline, batch = cached_pipeline(), make_batch(LENGTHS)
    llm, context = pipeline.generation.llm, pipeline.context(batch)
    stop, model = llm.stop_ids[0], llm.model.forward

    def eager(*arguments, **options):
        output = model(*arguments, **options)
        output.logits[..., stop] = 1e4
        return output

    monkeypatch.setattr(llm.model, "forward", eager)
    assert [len(ids) for ids in llm.generate(context.embeds, context.valid, context.adapted, 8)] == [1, 1]


def test_a_dialogue_whose_reply_has_no_word_is_named_and_the_others_are_answered(tmp_path, monkeypatch):
    """The voice has nothing to say, and a silent file would pass for an answer."""
    pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed")
    history = [{"role": "speaker", "utterance": "It was on the phone.", "audio_path": "turn.wav"}]
    soundfile.write(tmp_path / "turn.wav", torch.rand(16000).numpy() - 0.5, 16000)
    lines = [json.dumps({"conversation_id": name, "dialogue_history": history}) for name in ("mute", "fine")]
    (tmp_path / "two.jsonl").write_text("\n".join(lines))
    texts = iter(["", "I am here."])
    monkeypatch.setattr(EmpatheticGeneration, "write", lambda *_, **__: [Written(next(texts), False)])
    arguments = ["respond", str(tmp_path / "two.jsonl"), "--output", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    answers = json.loads(result.stdout)
    assert [answer["id"] for answer in answers["answered"]] == ["fine"]
    assert [rejected["item"] for rejected in answers["rejected"]] == ["mute"]
    assert "holds no word" in answers["rejected"][0]["problem"]
