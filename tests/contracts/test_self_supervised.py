"""Self-supervised encoders keep the contract of a speech encoder, and are what Hugging Face's are."""

from __future__ import annotations

import pytest
import torch
from published import SELF_SUPERVISED, save_self_supervised
from transformers import Wav2Vec2FeatureExtractor

from es4r_toolkit.backends.hf_encoder import HFSpeechEncoder
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.masks import frame_counts
from es4r_toolkit.protocols import SpeechEncoder

WIDTH, BINS = 32, 16


@pytest.fixture(scope="module", params=SELF_SUPERVISED)
def folder(request, tmp_path_factory):
    """A checkpoint of two layers in the published format, and Hugging Face's class for it."""
    folder = tmp_path_factory.mktemp("ssl")
    save_self_supervised(folder, request.param, WIDTH, BINS)
    return folder, SELF_SUPERVISED[request.param][0]


@pytest.fixture
def encoder(folder) -> HFSpeechEncoder:
    return HFSpeechEncoder(folder[0]).eval()


def noise(*samples: int) -> list[torch.Tensor]:
    return [0.1 * torch.randn(count, generator=torch.Generator().manual_seed(count)) for count in samples]


def batch(waves: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    return padded, torch.tensor([len(wave) / padded.shape[1] for wave in waves])


def test_the_encoder_keeps_its_contract(encoder):
    assert isinstance(encoder, SpeechEncoder)
    assert (encoder.n_mels, encoder.out_dim, encoder.sample_rate, encoder.hop) == (BINS, WIDTH, 16000, 320)
    assert encoder.max_frames == 1500


def test_features_then_encode_is_hugging_faces_model(folder, encoder):
    source, model = folder
    (wave,) = noise(8000)
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(source)
    values = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    expected = model.from_pretrained(source).eval()(values).last_hidden_state
    states, lens = encoder.encode(*encoder.features(wave[None], torch.ones(1)))
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)
    assert lens.tolist() == [1]


def test_a_clip_alone_equals_itself_in_a_batch(encoder):
    waves = noise(8000, 2000, 16000)
    frames, lens = encoder.features(*batch(waves))
    states, state_lens = encoder.encode(frames, lens)
    for row, wave in enumerate(waves):
        alone, _ = encoder.encode(*encoder.features(wave[None], torch.ones(1)))
        count = int(frame_counts(state_lens, states.shape[1])[row])
        assert count == alone.shape[1]
        torch.testing.assert_close(states[row, :count], alone[0], rtol=1e-4, atol=1e-5)
        assert (states[row, count:] == 0).all()


def test_what_stands_in_the_padding_changes_nothing(encoder):
    frames = torch.randn(1, 20, BINS)
    alone, _ = encoder.encode(frames, torch.ones(1))
    padded = torch.cat([frames, torch.full((1, 12, BINS), 7.0)], dim=1)
    states, _ = encoder.encode(padded, torch.tensor([20 / 32]))
    torch.testing.assert_close(states[:, :20], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 300, 399, 400, 719, 720])
def test_a_short_clip_gives_as_many_frames_as_fit_and_one_at_least(encoder, samples):
    frames, _ = encoder.features(*batch(noise(samples)))
    assert encoder.shortest == 400
    assert frames.shape[1] == max(1, 1 + (samples - 400) // 320)
    assert torch.isfinite(frames).all()


def test_a_frozen_encoder_passes_gradients_to_its_input_and_takes_none(encoder):
    frames = torch.randn(1, 25, BINS, requires_grad=True)
    encoder.train().encode(frames, torch.ones(1))[0].square().sum().backward()
    assert not encoder.model.training
    assert (frames.grad.abs().sum(dim=2) > 0).all()
    assert all(weight.grad is None for weight in encoder.parameters())


def test_an_encoder_that_is_not_frozen_learns_and_its_feature_extractor_does_not(folder):
    encoder = HFSpeechEncoder(folder[0], freeze=False).train()
    frames, lens = encoder.features(*batch(noise(8000, 6000)))
    encoder.encode(frames, lens)[0].square().sum().backward()
    without = {name for name, weight in encoder.named_parameters() if weight.requires_grad and weight.grad is None}
    assert not without, "weights that no loss reaches hang training in several processes"
    assert all(weight.grad is None for weight in encoder.model.feature_extractor.parameters())


def test_bfloat16_stays_near_float32(folder, encoder):
    half = HFSpeechEncoder(folder[0], dtype="bfloat16").eval()
    frames = torch.randn(1, 30, BINS)
    found, expected = half.encode(frames, torch.ones(1))[0], encoder.encode(frames, torch.ones(1))[0]
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_saved_encoder_is_the_same_one(encoder, tmp_path):
    encoder.save(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    frames = torch.randn(1, 25, BINS)
    again = HFSpeechEncoder(tmp_path).eval()
    assert torch.equal(again.encode(frames, torch.ones(1))[0], encoder.encode(frames, torch.ones(1))[0])


def test_what_cannot_be_is_refused(folder, whisper_folder, encoder):
    with pytest.raises(BackendError, match="31 frames in a window of 30"):
        HFSpeechEncoder(folder[0], max_frames=30).encode(torch.zeros(1, 31, BINS), torch.ones(1))
    with pytest.raises(ConfigError, match="max_frames"):
        HFSpeechEncoder(folder[0], max_frames=0)
    with pytest.raises(BackendError, match="is a whisper, none of wavlm"):
        HFSpeechEncoder(whisper_folder)
    with pytest.raises(BackendError, match=r"is a \w+, not a Whisper"):
        WhisperSpeechEncoder(folder[0])
    with pytest.raises(BackendError, match="n_mels is 16, the YAML says 80"):
        HFSpeechEncoder(folder[0], n_mels=80)
