"""Recordings of every kind: what was written is heard, and what is damaged is told, wherever the damage lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bad_sounds import chunk, encoded, fmt, riff
from hypothesis import given, settings
from hypothesis import strategies as st
from soak import examples

from es4r_toolkit.data.audio import ROUNDED, AudioLimits, decode, load, probe
from es4r_toolkit.errors import AudioError

RATE = 8000
TONE = 0.5 * np.sin(2 * np.pi * 300 * np.arange(4 * RATE) / RATE)
COMPRESSED = {kind: encoded(TONE, kind, RATE) for kind in ("FLAC", "OGG", "MP3")}
# How far what is read may lie from what was written: half a step of each.
SUBTYPES = {"PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-24, "PCM_U8": 2**-7, "FLOAT": 0.0, "DOUBLE": 2**-24}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sounds") / "sound"


def read(path: Path, data: bytes) -> np.ndarray | None:
    """What is heard of it; None where it is refused by name."""
    path.write_bytes(data)
    try:
        return decode(path)[0]
    except AudioError as error:
        require_words(error)
        return None


def require_words(error: AudioError) -> None:
    assert error.problem
    assert error.mend


@settings(max_examples=examples(30), deadline=None)
@given(
    count=st.integers(1, 500),
    channels=st.integers(1, 8),
    rate=st.integers(4000, 384000),
    subtype=st.sampled_from(list(SUBTYPES)),
    kind=st.sampled_from(["WAV", "WAVEX", "AIFF"]),
    seed=st.integers(0, 9),
)
def test_what_is_written_is_heard(path, count, channels, rate, subtype, kind, seed):
    samples = np.random.default_rng(seed).uniform(-0.99, 0.99, (count, channels)).astype("float32")
    if (kind, subtype) == ("AIFF", "PCM_U8"):
        kind = "WAV"
    path.write_bytes(encoded(samples, kind, rate, subtype=subtype))
    heard, own_rate = decode(path)
    assert own_rate == rate
    np.testing.assert_allclose(heard, samples.mean(axis=1), atol=SUBTYPES[subtype] + 1e-6)
    assert len(load(path, rate)) == count


@settings(max_examples=examples(30), deadline=None)
@given(
    start=st.floats(0, 5) | st.floats(),
    stop=st.none() | st.floats(0, 5) | st.floats(),
    subtype=st.sampled_from(["PCM_16", "FLOAT", "GSM610"]),
)
def test_a_part_is_that_part_or_refused(path, start, stop, subtype):
    path.write_bytes(encoded(TONE, rate=RATE, subtype=subtype))
    whole = decode(path)[0]
    good = 0 <= start < (4.0 if stop is None else stop) <= 4.0 + ROUNDED
    try:
        heard = decode(path, start=start, stop=stop)[0]
    except AudioError as error:
        require_words(error)
        good = good and subtype != "GSM610" and "has no sample" not in error.problem
        heard = None
    assert good == (heard is not None)
    if not good:
        return
    first, last = round(start * RATE), round((4.0 if stop is None else stop) * RATE)
    np.testing.assert_array_equal(heard, whole[first:last])


@settings(max_examples=examples(30), deadline=None)
@given(kind=st.sampled_from(list(COMPRESSED)), share=st.floats(0, 1, exclude_max=True))
def test_no_lost_end_passes_in_silence(path, kind, share):
    data = COMPRESSED[kind]
    heard = read(path, data[: int(share * len(data))])
    # The last frame of an MP3 may be padding.
    assert heard is None or (kind == "MP3" and share > 0.95 and len(heard) == len(TONE))


@settings(max_examples=examples(30), deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_no_broken_byte_of_an_ogg_passes_in_silence(path, place, flip):
    data = bytearray(COMPRESSED["OGG"])
    data[int(place * len(data))] ^= flip
    assert read(path, bytes(data)) is None


@settings(max_examples=examples(30), deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_broken_byte_of_the_sound_of_a_flac_is_told_or_mended(path, place, flip):
    whole = read(path, COMPRESSED["FLAC"])
    data = bytearray(COMPRESSED["FLAC"])
    sound = data.find(b"\xff\xf8")
    data[sound + int(place * (len(data) - sound))] ^= flip
    heard = read(path, bytes(data))
    assert heard is None or np.array_equal(heard, whole)


numbers = st.sampled_from([0, 1, 2, 3, 8, 9, 255, 256, 32767, 65535]) | st.integers(0, 65535)
large = st.sampled_from([0, 1, 8000, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
names = st.sampled_from(
    [b"LIST", b"JUNK", b"fact", b"cue ", b"smpl", b"bext", b"PEAK", b"data", b"fmt ", b"id3 ", b"    "]
)


@settings(max_examples=examples(60), deadline=None)
@given(
    tag=numbers,
    channels=numbers,
    rate=large,
    align=numbers,
    bits=numbers,
    declared=st.none() | large,
    held=st.binary(max_size=300),
    more=st.lists(st.tuples(names, st.binary(max_size=40), st.none() | large, st.booleans()), max_size=4),
    kind=st.sampled_from([b"RIFF", b"RIFX", b"RF64", b"riff"]),
)
def test_no_header_is_believed_beyond_the_limits(path, tag, channels, rate, align, bits, declared, held, more, kind):
    before = [chunk(name, content, size) for name, content, size, first in more if first]
    after = [chunk(name, content, size) for name, content, size, first in more if not first]
    form = fmt(tag % 8 if tag % 3 else tag, channels, rate, align, bits)
    heard = read(path, riff(form, *before, chunk(b"data", held, declared), *after, kind=kind))
    if heard is not None:
        limits = AudioLimits()
        info = probe(path)
        assert info.channels <= limits.max_channels
        assert limits.min_sample_rate <= info.sample_rate <= limits.max_sample_rate
        # No codec of these gives more than 8 samples for a byte.
        assert 0 < len(heard) <= 8 * path.stat().st_size + 1000
        assert np.isfinite(heard).all()
        assert np.abs(heard).max() <= limits.max_peak
