"""Long and odd dialogues through the shipped model: each is heard, answered and spoken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.dialogue import LISTENER, SPEAKER, Dialogue, Turn
from es4r_toolkit.inference import EmpathyResponder
from es4r_toolkit.losses import response_cross_entropy, response_kl

pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")
WORDS = "It was on the phone."


def recorded(folder: Path, index: int, seconds: float, rate: int = 16000, level: float = 0.2) -> Path:
    """A voiced sound that swells and falls, no turn like another."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 110 + 15 * (index % 7)
    sound = sum(np.sin(2 * np.pi * pitch * partial * time) / partial for partial in range(1, 12))
    path = folder / f"{index}.wav"
    soundfile.write(path, level * sound * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)) / 2, rate)
    return path


def dialogue_of(folder: Path, seconds: list[float], alternating: bool = True, **options) -> Dialogue:
    roles = [LISTENER if alternating and (len(seconds) - place) % 2 == 0 else SPEAKER for place in range(len(seconds))]
    turns = (
        Turn(role, f"{WORDS} {index}", recorded(folder, index, length, **options))
        for index, (role, length) in enumerate(zip(roles, seconds))
    )
    return Dialogue("odd", tuple(turns), Turn(LISTENER, "I can hear how calm you are."))


ODD = {
    "one turn": {"seconds": [2.0]},
    "forty turns": {"seconds": [1.0 + 0.1 * (index % 5) for index in range(40)]},
    "a turn of a fifth of a second": {"seconds": [2.0, 1.0, 0.2]},
    "a silent turn": {"seconds": [2.0, 1.0, 2.0], "level": 0.0},
    "speaker turns alone": {"seconds": [1.0, 2.0, 1.5], "alternating": False},
    "telephone band": {"seconds": [2.0, 1.0, 2.0], "rate": 8000},
    "studio rate": {"seconds": [2.0, 1.0, 2.0], "rate": 48000},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_odd_dialogue_is_answered_and_spoken(responder, tmp_path, odd):
    dialogue = dialogue_of(tmp_path, **odd)
    response = responder.respond(dialogue)
    assert response.text
    assert response.dropped_turns == 0
    assert response.waveform.square().mean().sqrt() > 0.01
    weights = response.plan.style_weights
    assert len(weights) == len(dialogue)
    assert sum(weights) == pytest.approx(1.0, abs=1e-5)
    assert all(np.isfinite(response.plan.energies))


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_odd_dialogue_is_learned_from(responder, tmp_path, odd):
    pipeline = responder.pipeline
    try:
        pipeline.train()
        paths = pipeline(responder.batch(dialogue_of(tmp_path, **odd)))
        loss = response_cross_entropy(paths.speech, paths.targets, paths.valid)
        (loss + response_kl(paths.speech, paths.text, paths.valid)).backward()
        gradients = [weight.grad for weight in pipeline.parameters() if weight.requires_grad]
        assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
        assert any(bool(gradient.abs().max() > 0) for gradient in gradients)
    finally:
        pipeline.zero_grad()
        responder.pipeline.eval()


def test_the_same_sound_at_another_rate_or_in_stereo_is_heard_alike(responder, tmp_path):
    """Of the reply only the stereo one must be the same: resampling may tip a close decision between two words."""
    answers, states = [], []
    for name, rate, channels in (("a", 16000, 1), ("b", 48000, 1), ("c", 16000, 2)):
        (tmp_path / name).mkdir()
        dialogue = dialogue_of(tmp_path / name, [2.0, 1.0, 2.0], rate=rate)
        if channels == 2:
            for turn in dialogue.history:
                sound, _ = soundfile.read(turn.audio)
                soundfile.write(turn.audio, np.stack([sound, sound], axis=1), rate)
        answers.append(responder.respond(dialogue))
        with torch.no_grad():
            states.append(responder.pipeline.context(responder.batch(dialogue)).heard.states[0])
    first, *others = answers
    # Another dialogue, its second turn half a second longer, lies 0.32 off.
    for other, bound in zip(states[1:], (0.03, 1e-4)):
        assert float((other - states[0]).norm() / states[0].norm()) < bound
    assert others[1].text == first.text
    for other in others:
        assert other.plan.energies == pytest.approx(first.plan.energies, rel=0.02)
    assert others[1].plan.energies == pytest.approx(first.plan.energies, rel=1e-4)


def test_more_than_four_minutes_lose_whole_oldest_turns_counted(tmp_path, caplog):
    """The window of 30 s holds 240 s of 8x frames."""
    responder = EmpathyResponder.from_hparams()
    stage = responder.pipeline.understanding
    assert isinstance(stage.encoder, WhisperSpeechEncoder)
    assert stage.encoder.max_frames == 3000
    dialogue = dialogue_of(tmp_path, [26.0] * 10)
    whole = responder.pipeline.context(responder.batch(dialogue))
    assert int(whole.heard.dropped[0]) == 1
    assert "1 oldest turns" in caplog.text
    newest = Dialogue("newest", dialogue.history[1:])
    mels, counts = stage.features(*_waves(responder, newest))
    without = stage.listen(mels, counts, torch.tensor([9]))
    heard = stage(*_waves(responder, dialogue), torch.tensor([10]))
    torch.testing.assert_close(heard.states, without.states, rtol=1e-4, atol=1e-4)


def _waves(responder: EmpathyResponder, dialogue: Dialogue) -> tuple[torch.Tensor, torch.Tensor]:
    batch = responder.batch(dialogue)
    return batch.waveforms, batch.wav_lens
