"""Kokoro keeps the contract of a voice: converted once from pickles, its packs chosen by strategy."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec

import pytest
import torch
from published import KOKORO, save_kokoro_pickles
from safetensors.torch import load_file, save_file

from es4r_toolkit.backends.kokoro import VOICES, WEIGHTS, KokoroSynthesizer, to_symbols
from es4r_toolkit.backends.kokoro_convert import convert
from es4r_toolkit.cli import app
from es4r_toolkit.errors import BackendError
from es4r_toolkit.lobes.energy_strategy import Prosody
from es4r_toolkit.protocols import SpeechSynthesizer

pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed")
# Found, not imported: the package's own start wants what is not installed.
if find_spec("kokoro") is None:
    pytest.skip("the voice Kokoro is not installed: make install", allow_module_level=True)

TEXT = "I am so sorry to hear that."


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Kokoro-82M")
    save_kokoro_pickles(folder)
    return folder


@pytest.fixture(scope="module")
def folder(published, tmp_path_factory):
    return convert(published, tmp_path_factory.mktemp("voice") / "kokoro")


@pytest.fixture(scope="module")
def voice(folder):
    return KokoroSynthesizer(folder, strategy_voices={"comfort": "af_nicole"})


def test_it_keeps_the_contract_of_a_voice_and_repeats_itself(voice):
    assert isinstance(voice, SpeechSynthesizer)
    assert (voice.style_dim, voice.sample_rate) == (None, 24000)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    waveform = voice.synthesize(TEXT)
    assert waveform.dtype == torch.float32
    assert 0 < waveform.abs().max() <= 1
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(voice.synthesize(TEXT), waveform)
    assert "misaki" not in sys.modules, "its text front end is not needed"


def test_rate_and_energy_are_honoured(voice):
    plain = voice.synthesize(TEXT)
    assert len(voice.synthesize(TEXT, prosody=Prosody(rate=0.5))) / len(plain) == pytest.approx(2, rel=0.2)
    # Random weights are loud: quiet enough that none is scaled back from clipping.
    low, lower = (voice.synthesize(TEXT, prosody=Prosody(energy=level)) for level in (-60.0, -66.0))
    torch.testing.assert_close(lower, low * 10 ** (-6 / 20))
    assert voice.synthesize(TEXT, prosody=Prosody(energy=40.0)).abs().max() <= 1


def test_an_octave_doubles_what_the_decoder_is_given_and_nothing_stays_changed(voice, monkeypatch):
    heard, forward = [], voice.model.decoder.forward
    monkeypatch.setattr(
        voice.model.decoder, "forward", lambda *given: heard.append(given[1].clone()) or forward(*given)
    )
    for semitones in (0.0, 12.0, 0.0):
        voice.synthesize(TEXT, prosody=Prosody(pitch_shift=semitones))
    torch.testing.assert_close(heard[1], 2 * heard[0])
    assert torch.equal(heard[2], heard[0])


def test_a_strategy_chooses_its_pack_and_a_mixture_blends_them(voice):
    assert voice.names == ["af_heart", "af_nicole"]
    assert voice.strategy_style({"comfort": 1.0}).tolist() == [0, 1]
    assert voice.strategy_style({"comfort": 0.25, "neutral": 0.5, "encourage": 0.25}).tolist() == [0.75, 0.25]
    waveforms = [voice.synthesize(TEXT, torch.tensor(shares)) for shares in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5])]
    assert torch.equal(waveforms[0], voice.synthesize(TEXT))
    assert len({tuple(waveform[:2000].tolist()) for waveform in waveforms}) == 3


def test_a_style_vector_of_another_voice_is_refused(voice):
    with pytest.raises(BackendError, match=r"style of shape \(256,\), not shares of 2 voice packs"):
        voice.synthesize(TEXT, torch.zeros(256))
    with pytest.raises(BackendError, match="has no style encoder"):
        voice.style(torch.zeros(16000), 16000)


def test_phonemes_become_the_symbols_it_was_trained_on(voice):
    assert to_symbols("tʃˈeɪndʒ ðɪ hˈoʊm") == "ʧˈAnʤ ðɪ hˈOm"
    symbols = to_symbols(voice.phonemes("Oh, I'm sorry! Could you join us nearby?"))
    assert set(symbols) <= set(KOKORO["vocab"]), "all of it is in its vocabulary"


def test_a_long_text_is_spoken_in_pieces(voice):
    pieces = list(voice._pieces(" ".join([TEXT] * 40)))
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 510
    assert " ".join(pieces) == to_symbols(voice.phonemes(" ".join([TEXT] * 40)))


def test_streaming_gives_a_waveform_a_sentence(voice):
    assert len(list(voice.stream(f"{TEXT} Tell me more."))) == 2


def test_an_unknown_pack_is_refused_with_those_there_are(folder):
    with pytest.raises(BackendError, match="use one of af_bella, af_heart, af_nicole"):
        KokoroSynthesizer(folder, voice="zz_none")


def test_the_command_line_converts(published, tmp_path, voice, capsys):
    with pytest.raises(SystemExit) as ended:
        app(["convert-kokoro", str(published), "--output", str(tmp_path / "voice")])
    assert ended.value.code == 0
    again = KokoroSynthesizer(tmp_path / "voice")
    assert torch.equal(again.synthesize(TEXT), voice.synthesize(TEXT))


def test_weights_must_fit_name_by_name(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "spoiled")
    weights = load_file(copy / WEIGHTS)
    del weights["bert_encoder.bias"]
    save_file(weights, copy / WEIGHTS)
    with pytest.raises(BackendError, match=r"bert_encoder\.bias is missing"):
        KokoroSynthesizer(copy)
    (copy / VOICES).unlink()
    with pytest.raises(BackendError, match=r"has no voices\.safetensors; .*es4r convert-kokoro"):
        KokoroSynthesizer(copy)


def test_what_is_no_pack_is_refused(published, tmp_path):
    copy = shutil.copytree(published, tmp_path / "published")
    torch.save(torch.zeros(3, 5), copy / "voices" / "broken.pt")
    with pytest.raises(BackendError, match=r"broken\.pt: is no voice pack"):
        convert(copy, tmp_path / "voice")
