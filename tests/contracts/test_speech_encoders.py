"""Speech encoders keep their contract, and say what is wrong with a checkpoint that does not."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperModel

from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.masks import frame_counts
from es4r_toolkit.protocols import SpeechEncoder


@pytest.fixture(scope="module")
def encoder(whisper_folder) -> WhisperSpeechEncoder:
    return WhisperSpeechEncoder(whisper_folder).eval()


def test_the_encoder_keeps_its_contract(encoder):
    assert isinstance(encoder, SpeechEncoder)
    assert (encoder.n_mels, encoder.out_dim, encoder.sample_rate, encoder.hop) == (16, 32, 16000, 160)
    assert encoder.max_frames == 100


def test_a_full_window_is_encoded_as_by_hugging_face(encoder, whisper_folder):
    mels = torch.randn(2, encoder.max_frames, 16)
    reference = WhisperModel.from_pretrained(whisper_folder).encoder.eval()
    expected = reference(mels.transpose(1, 2)).last_hidden_state
    states, lens = encoder.encode(mels, torch.ones(2))
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)
    assert lens.tolist() == [1, 1]


def test_the_papers_padding_to_the_window_is_hugging_faces_on_zeros(whisper_folder):
    padded = WhisperSpeechEncoder(whisper_folder, full_window=True)
    mels = torch.randn(1, 31, 16)
    whole = torch.nn.functional.pad(mels, (0, 0, 0, 69))
    expected = WhisperModel.from_pretrained(whisper_folder).encoder.eval()(whole.transpose(1, 2)).last_hidden_state
    states, _ = padded.eval().encode(mels, torch.ones(1))
    torch.testing.assert_close(states, expected[:, :16], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("samples", [1, 159, 161, 400, 4321, 15700])
def test_features_of_a_short_clip_are_those_of_whispers_own_extractor(encoder, whisper_folder, samples):
    extractor = WhisperFeatureExtractor.from_pretrained(whisper_folder)
    wave = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1
    # Beyond the clip the extractor sees silence, up to its window of 1 s; it mirrors only what reaches that end.
    expected = extractor(wave.numpy(), sampling_rate=16000, return_tensors="np").input_features[0]
    mels, _ = encoder.features(wave[None], torch.ones(1))
    frames = -(-samples // 160)
    assert mels.shape == (1, frames, 16)
    np.testing.assert_allclose(mels[0].numpy(), expected[:, :frames].T, atol=2e-4)


def test_features_of_silence_are_finite_and_constant(encoder):
    mels, _ = encoder.features(torch.zeros(1, 1600), torch.ones(1))
    assert (mels == -1.5).all()


def test_a_clip_of_no_length_still_gives_a_frame(encoder):
    mels, lens = encoder.features(torch.rand(2, 1600), torch.tensor([1.0, 0.0]))
    assert frame_counts(lens, mels.shape[1]).tolist() == [10, 1]


@pytest.mark.parametrize("frames", [1, 2, 7, 50, 99])
def test_padded_mels_are_masked(encoder, frames):
    mels = torch.randn(1, frames, 16)
    alone, _ = encoder.encode(mels, torch.ones(1))
    padded = torch.full((2, 100, 16), 9.0)
    padded[0, :frames] = mels
    states, lens = encoder.encode(padded, torch.tensor([frames / 100, 1.0]))
    count = -(-frames // 2)
    assert frame_counts(lens, states.shape[1]).tolist() == [count, 50]
    torch.testing.assert_close(states[0, :count], alone[0], rtol=1e-4, atol=1e-5)
    assert (states[0, count:] == 0).all()


def test_more_than_the_window_is_refused(encoder):
    with pytest.raises(BackendError, match="101 frames in a window of 100"):
        encoder.encode(torch.zeros(1, 101, 16), torch.ones(1))


def test_a_frozen_encoder_passes_gradients_to_its_input_and_takes_none(encoder):
    mels = torch.randn(1, 40, 16, requires_grad=True)
    encoder.encode(mels, torch.ones(1))[0].square().sum().backward()
    assert (mels.grad.abs().sum(dim=2) > 0).all()
    assert all(weight.grad is None for weight in encoder.parameters())


def test_an_encoder_that_is_not_frozen_learns(whisper_folder):
    encoder = WhisperSpeechEncoder(whisper_folder, freeze=False).train()
    assert encoder.encoder.training
    encoder.encode(torch.randn(1, 40, 16), torch.ones(1))[0].square().sum().backward()
    assert encoder.encoder.conv1.weight.grad.abs().max() > 0


def test_a_saved_encoder_is_the_same_one(encoder, whisper_folder, tmp_path):
    encoder.save(tmp_path / "copy")
    shutil.copy(whisper_folder / "preprocessor_config.json", tmp_path / "copy")
    mels = torch.randn(1, 40, 16)
    again = WhisperSpeechEncoder(tmp_path / "copy").eval()
    assert torch.equal(again.encode(mels, torch.ones(1))[0], encoder.encode(mels, torch.ones(1))[0])


def test_an_encoder_held_in_bfloat16_computes_what_autocast_does(whisper_folder, encoder):
    half = WhisperSpeechEncoder(whisper_folder, dtype="bfloat16").train()
    mels, lens = torch.randn(2, 40, encoder.n_mels, requires_grad=True), torch.tensor([1.0, 0.5])
    found, _ = half.encode(mels, lens)
    with torch.autocast("cpu", torch.bfloat16):
        expected, _ = encoder.encode(mels, lens)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert 0 < (found - encoder.encode(mels, lens)[0]).abs().max() < 0.1
    found.square().mean().backward()
    assert mels.grad.abs().sum() > 0


def test_an_encoder_that_is_trained_is_refused_in_bfloat16(whisper_folder):
    with pytest.raises(ConfigError, match="frozen"):
        WhisperSpeechEncoder(whisper_folder, freeze=False, dtype="bfloat16")
    with pytest.raises(ConfigError, match="one of float32, bfloat16"):
        WhisperSpeechEncoder(whisper_folder, dtype="int8")


def test_a_checkpoint_in_half_precision_is_read_as_float32(whisper_folder, encoder, tmp_path):
    shutil.copytree(whisper_folder, tmp_path, dirs_exist_ok=True)
    WhisperModel.from_pretrained(whisper_folder, dtype=torch.float16).save_pretrained(tmp_path)
    read = WhisperSpeechEncoder(tmp_path)
    assert {weight.dtype for weight in read.parameters()} == {torch.float32}
    mels, lens = torch.randn(1, 40, encoder.n_mels), torch.ones(1)
    torch.testing.assert_close(read.encode(mels, lens)[0], encoder.encode(mels, lens)[0], atol=2e-2, rtol=2e-2)
