"""StyleTTS 2 keeps the contract of a voice: converted once from a pickle, then spoken with in a recording's style."""

from __future__ import annotations

import importlib
import random
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
import yaml
from published import STYLE_HALF, ToyDecoder, save_styletts2_pickle
from safetensors.torch import load_file, save_file

from es4r_toolkit.backends.randomness import own_random_numbers
from es4r_toolkit.backends.styletts2 import FRAME, PLBERT, SYMBOLS, TAIL, WEIGHTS, StyleTTS2Synthesizer
from es4r_toolkit.backends.styletts2_convert import convert
from es4r_toolkit.cli import app
from es4r_toolkit.data import audio
from es4r_toolkit.data.feature_store import StyleStore
from es4r_toolkit.dialogue import Dialogue, Turn
from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.lobes.energy_strategy import Prosody
from es4r_toolkit.protocols import SpeechSynthesizer

pytest.importorskip("styletts2", reason="the voice StyleTTS 2 is not installed: make install")
pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed")

PLAIN = Prosody()
TEXT = "I am so sorry to hear that you have lost your work."


@pytest.fixture(scope="module", autouse=True)
def toy_decoder():
    """Its own decoder fixes widths that make a checkpoint of half a gigabyte."""
    from styletts2.Modules import hifigan

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hifigan, "Decoder", ToyDecoder)
        yield


@pytest.fixture(scope="module")
def pickled(tmp_path_factory, toy_decoder):
    folder = tmp_path_factory.mktemp("published")
    save_styletts2_pickle(folder)
    return folder


def converted(pickled, output):
    return convert(pickled / "epochs_2nd.pth", pickled / "config.yml", pickled / "plbert.yml", output)


@pytest.fixture(scope="module")
def folder(pickled, tmp_path_factory):
    return converted(pickled, tmp_path_factory.mktemp("voice") / "styletts2")


@pytest.fixture(scope="module")
def voice(folder):
    return StyleTTS2Synthesizer(folder)


def recording(seconds: float, hertz: float = 200.0, rate: int = 16000) -> torch.Tensor:
    time = torch.arange(int(seconds * rate)) / rate
    return 0.3 * torch.sin(2 * torch.pi * hertz * time) * (1 + 0.5 * torch.sin(9 * time))


@pytest.fixture(scope="module")
def style(voice):
    return voice.style(recording(2.0), 16000)


def durations(voice, text, style, prosody=PLAIN):
    """Frames of each token of a text of one piece."""
    (tokens,) = voice._pieces(text)
    with own_random_numbers(voice.seed):
        return voice._say(tokens, style, prosody).durations


def test_it_keeps_the_contract_of_a_voice(voice, style):
    assert isinstance(voice, SpeechSynthesizer)
    assert voice.style_dim == style.numel() == 2 * STYLE_HALF
    assert voice.honours == {"rate", "expressiveness", "pitch_shift", "energy"}
    waveform = voice.synthesize(TEXT, style)
    assert waveform.dtype == torch.float32
    assert len(waveform) == int(durations(voice, TEXT, style).sum()) * FRAME - TAIL
    assert 0.01 < waveform.abs().max() <= 1


def test_what_styles_depend_on_is_the_style_encoders_and_nothing_else(voice, folder):
    assert StyleTTS2Synthesizer(folder, alpha=0.9, seed=3).style_settings == voice.style_settings
    other = StyleTTS2Synthesizer(folder)
    with torch.no_grad():
        next(other.parts["decoder"].parameters()).add_(1)
    assert other.style_settings == voice.style_settings
    with torch.no_grad():
        next(other.parts["predictor_encoder"].parameters()).add_(1)
    assert other.style_settings != voice.style_settings


def test_a_style_that_was_kept_is_the_one_it_makes(tmp_path, voice):
    recorded, short = (Turn("speaker", "Hm.", tmp_path / f"{name}.wav") for name in ("long", "short"))
    for turn, seconds in ((recorded, 1.2), (short, 0.05)):
        audio.save(turn.audio, recording(seconds), 16000)
    store = StyleStore(tmp_path / "store", voice, 16000)
    store.fill([Dialogue("1", (recorded, short))], "cpu")
    assert torch.equal(store.style(recorded), voice.style(audio.load(recorded.audio, 16000), 16000))
    assert store.style(short) is None


def test_the_same_text_and_style_give_the_same_samples_and_no_random_state_moves(voice, style):
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = voice.synthesize(TEXT, style)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    torch.manual_seed(8)
    assert torch.equal(first, voice.synthesize(TEXT, style))
    assert not torch.equal(first, voice.synthesize(TEXT, voice.style(recording(2.0, hertz=90.0), 16000)))


def test_importing_it_downloads_and_prints_nothing(voice, style, capsys):
    voice.synthesize(TEXT, style)
    assert capsys.readouterr().out == ""
    assert "styletts2.tts" not in sys.modules, "which downloads, reseeds and imports langchain"


@pytest.mark.parametrize("rate", [0.5, 0.85, 2.0])
def test_rate_divides_predicted_durations(voice, style, rate):
    plain, changed = (durations(voice, TEXT, style, Prosody(rate=factor)) for factor in (1.0, rate))
    assert changed.sum() / plain.sum() == pytest.approx(1 / rate, rel=0.15)
    assert (changed >= 1).all()


def test_a_shift_of_an_octave_doubles_the_predicted_pitch(voice, style, monkeypatch):
    heard = []
    decoder = voice.parts["decoder"]
    forward = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda *given: heard.append(given[1]) or forward(*given))
    for semitones in (0.0, 12.0):
        voice.synthesize(TEXT, style, Prosody(pitch_shift=semitones))
    torch.testing.assert_close(heard[1], 2 * heard[0])


def test_expressiveness_scales_the_guidance_by_the_text(voice, style):
    plain, strong = (voice.synthesize(TEXT, style, Prosody(expressiveness=factor)) for factor in (1.0, 3.0))
    assert plain.shape != strong.shape or not torch.allclose(plain, strong)


def test_energy_is_a_gain_that_does_not_clip(voice, style):
    plain, quiet = (voice.synthesize(TEXT, style, Prosody(energy=level)) for level in (0.0, -6.0))
    torch.testing.assert_close(quiet, plain * 10 ** (-6 / 20))
    assert voice.synthesize(TEXT, style, Prosody(energy=40.0)).abs().max() <= 1


def test_a_style_of_another_width_is_refused(voice):
    with pytest.raises(BackendError, match=r"style of shape \(256,\), not \(32,\)"):
        voice.synthesize(TEXT, torch.zeros(256))


def test_alpha_and_beta_of_zero_take_the_reference_as_it_is(folder, style):
    exact = StyleTTS2Synthesizer(folder, alpha=0.0, beta=0.0)
    assert torch.equal(exact.synthesize(TEXT, style), exact.synthesize(TEXT, style, Prosody(expressiveness=2.0))), (
        "what diffusion draws is not heard"
    )


def test_a_very_short_text_is_cut_out_of_its_repetitions(voice, style):
    (tokens,) = voice._pieces("Oh.")
    assert len(tokens) < 10
    waveform = voice.synthesize("Oh.", style)
    said = durations(voice, "Oh.", style)
    assert 0 < len(waveform) / FRAME <= 3 * said.sum()
    assert len(waveform) < len(voice.synthesize(TEXT, style))


def test_a_text_longer_than_pl_bert_reads_is_spoken_in_pieces(voice, style):
    long = " ".join([TEXT] * 14)
    pieces = list(voice._pieces(long))
    assert len(pieces) > 1
    assert max(map(len, pieces)) <= 510
    together = "".join(SYMBOLS[token] for token in [token for piece in pieces for token in [*piece, 16]]).split()
    whole = voice.words.tokenize(voice.phonemes(long))
    assert together == [word for word in whole if word.strip()]
    assert len(voice.synthesize(long, style)) > 10 * len(voice.synthesize(TEXT, style))


def test_streaming_gives_a_waveform_a_sentence(voice, style):
    parts = list(voice.stream(f"{TEXT} Tell me more about your former work!", style))
    assert len(parts) == 2
    assert torch.equal(parts[0], voice.synthesize(TEXT, style))


@pytest.mark.parametrize("seconds", [0.12, 0.5, 0.89])
def test_a_short_reference_is_repeated(voice, seconds):
    assert torch.isfinite(voice.style(recording(seconds), 16000)).all()


@pytest.mark.parametrize("waveform", [torch.zeros(16000), recording(0.05), torch.zeros(0)], ids=["silent", "short", ""])
def test_a_reference_without_speech_is_refused(voice, waveform):
    with pytest.raises(BackendError, match=r"holds 0\.\d\d s of speech"):
        voice.style(waveform, 16000)


def test_silence_around_a_reference_changes_little(voice):
    speech, quiet = recording(2.0, rate=24000), torch.zeros(12000)
    alone, surrounded = (voice.style(wave, 24000) for wave in (speech, torch.cat([quiet, speech, quiet])))
    other = voice.style(recording(2.0, hertz=500.0, rate=24000), 24000)
    assert (alone - surrounded).norm() < 0.5 * (alone - other).norm()


def test_a_style_is_needed_or_a_reference(voice, folder, style, demo_folder):
    with pytest.raises(BackendError, match="no style to speak in"):
        voice.synthesize(TEXT)
    told = StyleTTS2Synthesizer(folder, reference=demo_folder / "wav" / "dia20001utt1_54.wav")
    assert len(told.synthesize(TEXT)) > FRAME


@pytest.mark.parametrize("text", ["", "   ", "...", "?!"])
def test_a_text_with_nothing_to_say_is_refused(voice, style, text):
    with pytest.raises(BackendError, match="nothing that voice 'en-us' can say"):
        voice.synthesize(text, style)


@pytest.mark.parametrize(
    ("given", "named"), [({"alpha": 1.5}, "alpha"), ({"beta": -0.1}, "beta"), ({"diffusion_steps": 2}, "steps")]
)
def test_settings_that_make_no_sense_are_refused(folder, given, named):
    with pytest.raises(ConfigError, match=named):
        StyleTTS2Synthesizer(folder, **given)


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_the_command_line_converts_a_pickle(pickled, tmp_path, voice, style, capsys):
    files = ["--config", str(pickled / "config.yml"), "--plbert", str(pickled / "plbert.yml")]
    with pytest.raises(SystemExit) as ended:
        app(["convert-styletts2", str(pickled / "epochs_2nd.pth"), *files, "--output", str(tmp_path / "voice")])
    assert ended.value.code == 0
    assert "--voice=styletts2" in capsys.readouterr().out
    again = StyleTTS2Synthesizer(tmp_path / "voice")
    assert torch.equal(again.synthesize(TEXT, style), voice.synthesize(TEXT, style))
    with pytest.raises(BackendError, match="is there already"):
        converted(pickled, tmp_path / "voice")


def test_a_pickle_that_would_run_something_is_refused(pickled, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"net": {}, "trap": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(BackendError, match="cannot be read as weights"):
        convert(tmp_path / "trap.pth", pickled / "config.yml", pickled / "plbert.yml", tmp_path / "voice")
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "voice").exists()


def test_a_pickle_that_reaches_for_functions_by_their_names_is_refused(pickled, tmp_path):
    """By getattr, which published files name, a function's globals could be reached and exec put among them."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    getattr_ = b"cbuiltins\ngetattr\n"
    rebuild = b"ctorch._utils\n_rebuild_device_tensor_from_cpu_tensor\n"

    def attribute(of: bytes, name: str) -> bytes:
        return getattr_ + of + text(name) + b"\x86R"

    code = f"open({str(tmp_path / 'sprung')!r}, 'w')"
    run = attribute(attribute(getattr_, "__self__"), "exec")
    load = b"(" + attribute(rebuild, "__globals__") + text("_get_restore_location") + run + b"s"
    with zipfile.ZipFile(tmp_path / "trap.pth", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("trap/data.pkl", b"\x80\x02" + load + rebuild + b"(NN" + text(code) + b"\x89tRt.")
        archive.writestr("trap/version", "3\n")
        archive.writestr("trap/byteorder", "little")
    with pytest.raises(BackendError, match="cannot be read as weights"):
        convert(tmp_path / "trap.pth", pickled / "config.yml", pickled / "plbert.yml", tmp_path / "voice")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"no pickle", b"", b"PK\x03\x04cut"])
def test_a_file_that_is_no_checkpoint_is_refused(pickled, tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(BackendError, match="cannot be read as weights"):
        convert(tmp_path / "broken.pth", pickled / "config.yml", pickled / "plbert.yml", tmp_path / "voice")


def test_a_checkpoint_without_a_part_is_refused(pickled, tmp_path):
    torch.save({"net": {"bert": {}}}, tmp_path / "part.pth")
    with pytest.raises(BackendError, match="holds no bert_encoder"):
        convert(tmp_path / "part.pth", pickled / "config.yml", pickled / "plbert.yml", tmp_path / "voice")


def spoil(folder, tmp_path, change):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "spoiled")
    change(copy)
    return copy


def test_weights_must_fit_name_by_name_and_shape_by_shape(folder, tmp_path):
    def without_one(copy):
        weights = load_file(copy / WEIGHTS)
        del weights["predictor.F0_proj.bias"]
        save_file(weights, copy / WEIGHTS)

    with pytest.raises(BackendError, match=r"1 weights differ by name, predictor\.F0_proj\.bias is missing"):
        StyleTTS2Synthesizer(spoil(folder, tmp_path, without_one))


def test_another_configuration_than_the_checkpoints_is_refused(folder, tmp_path):
    def narrower(copy):
        settings = yaml.safe_load((copy / PLBERT).read_text())
        settings["model_params"]["intermediate_size"] = 16
        (copy / PLBERT).write_text(yaml.safe_dump(settings))

    with pytest.raises(BackendError, match="by its configuration"):
        StyleTTS2Synthesizer(spoil(folder, tmp_path, narrower))


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(BackendError, match="no such folder"):
        StyleTTS2Synthesizer(tmp_path / "nowhere")
    with pytest.raises(BackendError, match=r"has no plbert\.yml; .*es4r convert-styletts2"):
        StyleTTS2Synthesizer(spoil(folder, tmp_path, lambda copy: (copy / PLBERT).unlink()))


def test_without_the_package_it_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "styletts2.models", None)
    with pytest.raises(BackendError, match=r"pip install --no-deps styletts2==0\.1\.6"):
        StyleTTS2Synthesizer(folder)


def test_its_own_decoder_speaks_the_same_again_and_moves_no_random_state(tmp_path, monkeypatch):
    """At the widths that it fixes, with random weights."""
    monkeypatch.undo()
    from styletts2.Modules import hifigan

    importlib.reload(hifigan)
    save_styletts2_pickle(tmp_path, width=512, style=128)
    voice = StyleTTS2Synthesizer(converted(tmp_path, tmp_path / "voice"))
    style = voice.style(recording(1.0), 16000)
    state = torch.get_rng_state()
    first, again = (voice.synthesize("I hear you, my dear friend.", style) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.isfinite(first).all()
    assert len(first) > 10 * FRAME
