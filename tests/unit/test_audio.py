"""Recordings: what is decoded, and what is refused with which words."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from es4r_toolkit.data import containers
from es4r_toolkit.data.audio import AudioLimits, decode, load, probe, save
from es4r_toolkit.errors import AudioError, ConfigError

RATE = 16000


def tone(seconds: float = 0.5, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def write(path: Path, samples: np.ndarray | None = None, rate: int = RATE, **options: str) -> Path:
    soundfile.write(str(path), tone(rate=rate) if samples is None else samples, rate, **options)
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def refusal(path: Path, read=decode, **limits: float) -> AudioError:
    with pytest.raises(AudioError) as caught:
        read(path, limits=AudioLimits(**limits))
    error = caught.value
    assert str(path) in str(error)
    assert error.mend
    assert "\n" not in str(error)
    return error


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "A.WAV", "ä ö.wav"])
def test_every_format_gives_the_tone_that_was_written(tmp_path, name):
    # MP3 and OGG are lossy, and MP3 adds a little delay: the loudness must hold, not each sample.
    samples = load(write(tmp_path / name), RATE)
    assert samples.dtype == torch.float32
    assert len(samples) == pytest.approx(0.5 * RATE, rel=0.15)
    assert samples[500:7000].square().mean().sqrt() == pytest.approx(0.5 / 2**0.5, rel=0.05)


def test_probe_reads_the_header(tmp_path):
    info = probe(write(tmp_path / "a.wav", np.zeros((2400, 2)), 24000))
    assert (info.sample_rate, info.frames, info.channels, info.seconds) == (24000, 2400, 2, 0.1)


def test_channels_are_averaged(tmp_path):
    path = write(tmp_path / "a.wav", np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1))
    assert load(path, RATE).numpy() == pytest.approx(np.full(100, 0.125))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 44101])
def test_resampling_keeps_pitch_and_level(tmp_path, rate):
    samples = load(write(tmp_path / "a.wav", tone(rate=rate), rate), RATE).numpy()
    wanted = tone()[: len(samples)]
    assert len(samples) == pytest.approx(len(tone()), abs=1)
    assert np.abs(samples - wanted)[500:-500].max() < 5e-3


def test_an_odd_ratio_never_reaches_the_resampler_whose_kernel_would_take_gigabytes(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError(arguments[1:])

    monkeypatch.setattr("torchaudio.functional.resample", refuse)
    path = write(tmp_path / "a.wav", rate=44101)
    assert len(load(path, RATE)) == pytest.approx(8000, abs=1)
    with pytest.raises(AssertionError, match="44100"):
        load(write(tmp_path / "b.wav", rate=44100), RATE)


def test_a_long_recording_is_the_same_read_in_blocks(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 150_001).astype("float32")
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert np.array_equal(load(path, RATE).numpy(), samples)


def test_a_missing_file_is_refused(tmp_path):
    assert refusal(tmp_path / "none.wav").problem == "does not exist"


def test_a_folder_is_refused(tmp_path):
    assert refusal(tmp_path).problem == "is not a file"


def test_a_recording_that_may_not_be_read_is_named_with_the_reason(tmp_path, monkeypatch):
    def forbidden(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path = write(tmp_path / "a.wav")
    monkeypatch.setattr(Path, "open", forbidden)
    error = refusal(path)
    assert (error.problem, error.mend) == (
        "cannot be read (Permission denied)",
        "make it readable, or put it elsewhere",
    )


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.wav").touch()
    assert refusal(tmp_path / "a.wav").problem == "is empty (0 bytes)"


@pytest.mark.parametrize("content", [b"hello world " * 50, b"RIFF", b"\x00" * 1000, b"RIFF\x10\x00\x00\x00WAVEjunk"])
def test_what_is_not_audio_is_refused(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    assert "not audio" in refusal(tmp_path / "a.wav", probe).problem


def test_a_format_whose_cuts_cannot_be_told_is_refused(tmp_path):
    assert "is AU, not one of WAV" in refusal(write(tmp_path / "a.au"), probe).problem


@pytest.mark.parametrize("name", ["a.wav", "a.aiff"])
def test_a_cut_file_is_told_from_its_header(tmp_path, name):
    path = write(tmp_path / name)
    whole = path.stat().st_size
    problem = refusal(cut(path, 0.5), probe).problem
    declared, held = (int(word) for word in problem.split() if word.isdigit())
    assert declared - held == whole - whole // 2


def test_a_wav_cut_behind_other_chunks_is_told(tmp_path):
    path = write(tmp_path / "a.wav")
    data = path.read_bytes()
    # An odd-sized chunk before the samples: sizes are padded to even.
    listing = b"LIST" + struct.pack("<I", 5) + b"INFOx" + b"\x00"
    path.write_bytes(data[:36] + listing + data[36:-1000])
    assert "declares 16000 bytes of samples and holds 15000" in refusal(path, probe).problem


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3"])
def test_a_cut_compressed_file_is_told_when_decoded(tmp_path, name):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE)
    path = cut(write(tmp_path / name, noise), 0.6)
    error = refusal(path)
    assert "cut short" in error.mend


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc, which tells the memory of a process")
@pytest.mark.parametrize("kind", ["cut", "tagged", "one page"])
def test_ogg_files_that_cannot_be_opened_cost_no_memory(tmp_path, kind):
    """libsndfile 1.2.2 keeps 6 kB of each that it tries: here 17 MB."""
    path, whole = tmp_path / "a.ogg", write(tmp_path / "whole.ogg").read_bytes()
    first = bytearray(whole[: whole.index(b"OggS", 4)])
    # Both the first page of its stream and the last.
    first[5], first[22:26] = 0x06, bytes(4)
    first[22:26] = containers._page_checksum(bytes(first)).to_bytes(4, "little")
    tag = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
    path.write_bytes({"cut": whole[:100], "tagged": tag + whole[:100], "one page": bytes(first)}[kind])

    def pages(tries: int) -> int:
        for _ in range(tries):
            refusal(path)
        return int(Path("/proc/self/statm").read_text().split()[1])

    before = pages(100)
    assert (pages(3000) - before) * os.sysconf("SC_PAGE_SIZE") < 3e6


def test_a_wav_streamed_to_a_pipe_is_whole(tmp_path):
    path = write(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(load(path, RATE)) == 8000


def test_a_flac_stream_of_unknown_length_is_refused(tmp_path):
    path = write(tmp_path / "a.flac")
    data = bytearray(path.read_bytes())
    # The 36 bits of the sample count in STREAMINFO; zero says unknown.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert "declares no length" in refusal(path, probe).problem


def test_a_recording_without_a_header_is_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    assert "no header" in refusal(tmp_path / "a.raw", probe).problem


def test_a_recording_without_samples_is_refused(tmp_path):
    assert "0 frames" in refusal(write(tmp_path / "a.wav", np.zeros(0)), probe).problem


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 70_000])
def test_samples_that_are_not_finite_are_refused(tmp_path, value, place):
    samples = np.zeros(80_000, dtype="float32")
    samples[place] = value
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert "has 1 NaN or infinite samples" in refusal(path).problem


def test_integers_stored_as_floats_are_refused(tmp_path):
    path = write(tmp_path / "a.wav", np.float32(tone() * 32768), subtype="FLOAT")
    error = refusal(path)
    assert "over the limit of 16" in error.problem
    assert "32768" in error.mend


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_seconds": 0.4}, "lasts 0.5 s, over the limit of 0.4 s"),
        ({"max_bytes": 1000}, "bytes, over the limit of 1000"),
        ({"max_channels": 1}, "has 2 channels, over the limit of 1"),
        ({"min_sample_rate": 22050}, "16000 Hz, outside 22050 to 384000 Hz"),
        ({"max_sample_rate": 8000}, "16000 Hz, outside 4000 to 8000 Hz"),
    ],
)
def test_each_limit_names_the_value_and_the_bound(tmp_path, limits, words):
    path = write(tmp_path / "a.wav", np.stack([tone(), tone()], axis=1))
    assert words in refusal(path, probe, **limits).problem
    probe(path)


@pytest.mark.parametrize("rate", [0, 1, 3999])
def test_a_header_with_an_absurd_sample_rate_is_refused(tmp_path, rate):
    path = write(tmp_path / "a.wav")
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    refusal(path, probe)


@pytest.mark.parametrize(
    "limits", [{"max_seconds": 0}, {"max_channels": -1}, {"min_sample_rate": 9, "max_sample_rate": 8}]
)
def test_limits_that_nothing_could_keep_are_refused(limits):
    with pytest.raises(ConfigError):
        AudioLimits(**limits)


@pytest.mark.parametrize("rate", [0, -1, 16000.0, True, "16000"])
def test_a_target_rate_that_is_no_rate_is_refused(tmp_path, rate):
    with pytest.raises(ConfigError, match="sample_rate"):
        load(write(tmp_path / "a.wav"), rate)


def test_save_and_load_agree_to_sixteen_bits(tmp_path):
    waveform = torch.from_numpy(tone()).float()
    save(tmp_path / "a.wav", waveform, RATE)
    assert soundfile.info(str(tmp_path / "a.wav")).subtype == "PCM_16"
    assert (load(tmp_path / "a.wav", RATE) - waveform).abs().max() < 2 / 32768
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_failed_save_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = write(tmp_path / "a.wav")
    before = path.read_bytes()
    for waveform in (torch.tensor([0.0, float("nan")]), torch.zeros(0), torch.zeros(2, 100)):
        with pytest.raises(AudioError, match=r"a\.wav"):
            save(path, waveform, RATE)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.wav"]


def test_a_save_into_a_missing_folder_names_it(tmp_path):
    with pytest.raises(AudioError, match="cannot be written"):
        save(tmp_path / "none" / "a.wav", torch.zeros(10), RATE)


def test_clipping_is_counted_in_the_log(tmp_path, caplog):
    save(tmp_path / "a.wav", torch.tensor([0.0, 1.5, -2.0, 0.5]), RATE)
    assert "2 of 4 samples" in caplog.text
    assert load(tmp_path / "a.wav", RATE).abs().max() <= 1


@pytest.fixture(scope="module")
def whole_wav(tmp_path_factory) -> tuple[Path, bytes]:
    path = write(tmp_path_factory.mktemp("fuzz") / "a.wav", tone(0.02))
    return path, path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 43), byte=st.integers(0, 255), keep=st.integers(0, 683))
def test_a_damaged_file_is_refused_or_read_but_never_crashes(whole_wav, place, byte, keep):
    path, data = whole_wav
    damaged = bytearray(data)
    damaged[place] = byte
    path.write_bytes(bytes(damaged[: len(damaged) - keep]))
    with contextlib.suppress(AudioError):
        samples = load(path, RATE)
        assert len(samples) > 0
        assert torch.isfinite(samples).all()


@settings(max_examples=40, deadline=None)
@given(lost=st.integers(1, 639))
def test_no_lost_sample_of_a_wav_passes_in_silence(whole_wav, lost):
    path, data = whole_wav
    path.write_bytes(data[:-lost])
    with pytest.raises(AudioError):
        probe(path)
