"""Recognizers write down what was said, and a Whisper shares what the pipeline has loaded and computed already."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor, WhisperForConditionalGeneration

from es4r_toolkit.backends.pocketsphinx_asr import PocketsphinxRecognizer
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.backends.whisper_asr import WhisperRecognizer, silence_beside
from es4r_toolkit.cancelling import Cancellation, Cancelled
from es4r_toolkit.data.audio import load
from es4r_toolkit.errors import BackendError
from es4r_toolkit.protocols import Recognizer


@pytest.fixture
def folder(whole_whisper_folder):
    return whole_whisper_folder


def wave(samples: int) -> torch.Tensor:
    """Noise that ends in a frame of silence, so that none of it reaches into frames after the end."""
    noise = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    noise[-400:] = 0
    return noise


def by_hugging_face(folder, waveform: torch.Tensor, **options) -> str:
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    features = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    ids = model.generate(features, do_sample=False, num_beams=1, task="transcribe", **options)
    return PreTrainedTokenizerFast.from_pretrained(folder).decode(ids[0], skip_special_tokens=True).strip()


@pytest.mark.parametrize("language", ["en", "de", None])
def test_whisper_writes_what_hugging_faces_writes(folder, language):
    recognizer = WhisperRecognizer(folder, language=language)
    assert isinstance(recognizer, Recognizer)
    heard = wave(24000)
    options = {} if language is None else {"language": language}
    expected = by_hugging_face(folder, heard, **options)
    assert len(expected) > 3, "random weights must say something"
    assert recognizer.transcribe(heard) == expected
    assert recognizer.transcribe(wave(16000)) != expected


def test_what_is_longer_than_the_window_is_written_down_in_pieces(folder):
    recognizer = WhisperRecognizer(folder, language="en")
    mels, _ = WhisperSpeechEncoder(folder).features(wave(80000)[None], torch.ones(1))
    pieces = [recognizer_of(folder).transcribe_features(part) for part in mels[0].split(200)]
    assert len(pieces) == 3
    # Silence after the last piece is as loud as the whole recording says.
    assert recognizer.transcribe(wave(80000)).startswith(" ".join(pieces[:2]))


def recognizer_of(folder) -> WhisperRecognizer:
    recognizer = WhisperRecognizer(folder, language="en")
    recognizer.share_encoder(WhisperSpeechEncoder(folder))
    return recognizer


def test_an_encoder_of_the_same_checkpoint_is_shared(folder, whisper_folder):
    encoder, recognizer = WhisperSpeechEncoder(folder), WhisperRecognizer(folder, language="en")
    recognizer.share_encoder(encoder)
    assert recognizer.encoder is encoder
    assert recognizer.shares_features
    mels, _ = encoder.features(wave(24000)[None], torch.ones(1))
    alone = WhisperRecognizer(folder, language="en").transcribe(wave(24000))
    assert recognizer.transcribe_features(mels[0]) == recognizer.transcribe(wave(24000)) == alone
    # Its own encoder is left out of what is loaded.
    assert not any(weight.requires_grad for weight in recognizer.parameters())
    names = [name for name, _ in recognizer.named_parameters() if "encoder" in name.split(".") and "layers" in name]
    assert all(name.startswith("encoder.") for name in names)
    for other in (WhisperSpeechEncoder(whisper_folder), WhisperSpeechEncoder(folder, freeze=False)):
        recognizer.share_encoder(other)
        assert recognizer.encoder is not other
        assert not recognizer.shares_features
        assert recognizer.transcribe(wave(24000)) == alone


def test_a_shared_encoder_of_the_papers_window_hears_the_same(folder):
    recognizer = WhisperRecognizer(folder, language="en")
    recognizer.share_encoder(WhisperSpeechEncoder(folder, full_window=True))
    assert recognizer.transcribe(wave(24000)) == recognizer_of(folder).transcribe(wave(24000))


def test_a_language_that_it_does_not_know_is_refused_with_those_it_does(folder):
    with pytest.raises(BackendError, match=r"does not know language 'fr'.*de, en"):
        WhisperRecognizer(folder, language="fr")


def test_a_checkpoint_without_a_decoder_is_no_recognizer(whisper_folder, qwen3_folder):
    with pytest.raises(BackendError, match="without a decoder"):
        WhisperRecognizer(whisper_folder)
    with pytest.raises(BackendError, match="is a qwen3, not a Whisper"):
        WhisperRecognizer(qwen3_folder)


def test_a_recording_that_ends_at_once_differs_from_hugging_faces_in_its_last_frames_only(folder):
    encoder, heard = WhisperSpeechEncoder(folder), torch.rand(16000) - 0.5
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    expected = extractor(heard.numpy(), sampling_rate=16000, return_tensors="pt").input_features[0].T
    mels, _ = encoder.features(heard[None], torch.ones(1))
    filled = torch.cat([mels[0], silence_beside(mels[0]).expand(100, 16)])
    same = torch.isclose(filled, expected, atol=2e-4).all(dim=1)
    assert same[:100].all()
    assert same[102:].all()


def test_pocketsphinx_writes_down_the_demo_dialogues(demo_folder):
    pytest.importorskip("pocketsphinx", reason="the extra [asr] is not installed")
    recognizer = PocketsphinxRecognizer()
    assert isinstance(recognizer, Recognizer)
    heard = load(demo_folder / "wav" / "dia20001utt2_52.wav", recognizer.sample_rate)
    written = recognizer.transcribe(heard)
    assert written == "yes it feels like i'm constantly running on empty and never getting a break"
    assert recognizer.transcribe(torch.zeros(8000)) == ""
    assert recognizer.transcribe(heard) == written, "what was heard before changes nothing"
    assert recognizer.transcribe(torch.zeros(0)) == ""


@pytest.fixture
def pocketsphinx() -> Iterator[PocketsphinxRecognizer]:
    pytest.importorskip("pocketsphinx", reason="the extra [asr] is not installed")
    recognizer = PocketsphinxRecognizer()
    yield recognizer
    recognizer.close()


def noise(seconds: int) -> torch.Tensor:
    return torch.rand(seconds * 16000, generator=torch.Generator().manual_seed(0)) - 0.5


def test_other_threads_go_on_while_pocketsphinx_listens(pocketsphinx):
    """The library holds Python's lock, so it has a process of its own."""
    listening = threading.Thread(target=pocketsphinx.transcribe, args=(noise(10),))
    longest, before = 0.0, time.perf_counter()
    listening.start()
    while listening.is_alive():
        time.sleep(0.005)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    assert longest < 1.0


def test_a_recognition_that_is_cancelled_ends_at_once_and_the_next_is_as_ever(pocketsphinx, demo_folder):
    heard = load(demo_folder / "wav" / "dia20001utt2_52.wav", pocketsphinx.sample_rate)

    def seconds_to_end() -> float:
        cancellation, ended = Cancellation(), []

        def listen() -> None:
            with cancellation.rules_here(), pytest.raises(Cancelled):
                pocketsphinx.transcribe(noise(60))
            ended.append(time.perf_counter())

        thread = threading.Thread(target=listen)
        thread.start()
        time.sleep(0.5)
        asked = time.perf_counter()
        cancellation.cancel()
        thread.join(10)
        return ended[0] - asked

    # The least of three, since other work may hold both cores.
    assert min(seconds_to_end() for _ in range(3)) < 0.1
    assert pocketsphinx.transcribe(heard).startswith("yes it feels like")


def test_a_worker_that_died_is_started_again(pocketsphinx, demo_folder, caplog):
    heard = load(demo_folder / "wav" / "dia20001utt2_52.wav", pocketsphinx.sample_rate)
    written = pocketsphinx.transcribe(heard)
    pocketsphinx._worker.kill()
    pocketsphinx._worker.wait()
    assert pocketsphinx.transcribe(heard) == written
