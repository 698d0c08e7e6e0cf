"""Bad and odd recordings, made by code: what each is called, how it is made, and what must be heard or said of it."""

from __future__ import annotations

import gzip
import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

RATE = 16000
SECONDS = 0.5
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(RATE * SECONDS)) / RATE)
LOUD = 0.5 / 2**0.5
# Tones of a few seconds, so that half of a compressed one holds whole blocks.
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE)
NOT_AUDIO, CUT, NOTHING = "is not audio that can be read", "cut short", "does not exist"
Content = bytes | Callable[[Path], object]


class Heard(NamedTuple):
    """What a recording that is odd and good must give: seconds, and the root mean square of its samples."""

    seconds: float = SECONDS
    level: float = LOUD


class Sound(NamedTuple):
    """One recording."""

    name: str
    content: Content | None
    expected: Heard | str


def make_sounds(folder: Path) -> list[Sound]:
    """Write all of them into a folder."""
    made = list(sounds())
    for name, content, _ in made:
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content is not None:
            content(folder / name)
    return made


def sounds() -> Iterator[Sound]:
    """The table; its parts go from headers to names."""
    for part in (_headers, _chunks, _codecs, _samples, _compressed, _disguises, _places, _names):
        yield from (Sound(*row) for row in part())


def encoded(samples: np.ndarray = TONE, kind: str = "WAV", rate: int = RATE, **options: str) -> bytes:
    """A recording in a container of libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes, declared: int | None = None) -> bytes:
    """A chunk of a RIFF file, which may lie about its size."""
    return name + struct.pack("<I", len(content) if declared is None else declared) + content + bytes(len(content) % 2)


def fmt(tag: int = 1, channels: int = 1, rate: int = RATE, align: int = 2, bits: int = 16) -> bytes:
    """The chunk that says how samples are written."""
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, min(rate * align, 2**32 - 1), align, bits))


def riff(*chunks: bytes, kind: bytes = b"RIFF", form: bytes = b"WAVE") -> bytes:
    """A RIFF file."""
    content = form + b"".join(chunks)
    return kind + struct.pack("<I", len(content)) + content


# Vorbis smooths noise: a twelfth more of it is within the bounds.
LONG = Heard(3.0, 0.3)
SAMPLES = (TONE * 32767).astype("<i2").tobytes()
DATA = chunk(b"data", SAMPLES)
WAV = riff(fmt(), DATA)


def _headers() -> Iterator[tuple]:
    yield "empty.wav", b"", "is empty (0 bytes)"
    for size in (1, 4, 8, 12, 20, 35, 36, 40):
        yield f"header of {size} bytes.wav", WAV[:size], NOT_AUDIO
    yield "header but a byte.wav", WAV[:43], "has no samples"
    yield "header alone.wav", riff(fmt(), chunk(b"data", b"")), "has no samples"
    yield "declares no samples.wav", riff(fmt(), chunk(b"data", SAMPLES, 0)), "has no samples"
    yield "half.wav", WAV[: len(WAV) // 2], f"declares {len(SAMPLES)} bytes of samples and holds"
    yield "a byte short.wav", WAV[:-1], f"declares {len(SAMPLES)} bytes of samples and holds {len(SAMPLES) - 1}"
    yield "declares 1 GiB.wav", riff(fmt(), chunk(b"data", SAMPLES, 1 << 30)), "declares 1073741824 bytes"
    yield "streamed 2 GiB.wav", riff(fmt(), chunk(b"data", SAMPLES, 0x7FFFFFFF)), Heard()
    yield "streamed 4 GiB.wav", riff(fmt(), chunk(b"data", SAMPLES, 0xFFFFFFFF)), Heard()
    for rate in (1, 3999, 384001, 0x7FFFFFFF):
        yield f"{rate} Hz.wav", riff(fmt(rate=rate), DATA), f"has a sample rate of {rate} Hz"
    yield "0 Hz.wav", riff(fmt(rate=0), DATA), NOT_AUDIO
    yield "4294967295 Hz.wav", riff(fmt(rate=0xFFFFFFFF), DATA), NOT_AUDIO
    yield "4000 Hz.wav", encoded(TONE, rate=4000), Heard(2.0)
    yield "384 kHz.wav", encoded(np.repeat(TONE, 24), rate=384000), Heard()
    for channels in (9, 1000):
        data = chunk(b"data", bytes(2 * channels * 100))
        yield f"{channels} channels.wav", riff(fmt(channels=channels, align=2 * channels), data), f"has {channels} chan"
    yield "0 channels.wav", riff(fmt(channels=0), DATA), NOT_AUDIO
    yield "65535 channels.wav", riff(fmt(channels=65535), DATA), NOT_AUDIO
    yield "8 channels.wav", encoded(np.stack([TONE] * 8, axis=1)), Heard()
    yield "12 bits.wav", riff(fmt(bits=12), DATA), Heard()
    for bits in (0, 64):
        yield f"{bits} bits.wav", riff(fmt(bits=bits), DATA), NOT_AUDIO
    yield "unknown codec.wav", riff(fmt(tag=0xEEEE), DATA), NOT_AUDIO
    yield "codec zero.wav", riff(fmt(tag=0), DATA), NOT_AUDIO
    yield "blocks of no bytes.wav", riff(fmt(align=0), DATA), Heard()


def _chunks() -> Iterator[tuple]:
    listing = chunk(b"LIST", b"INFOIART\x04\0\0\0me\0\0")
    yield "list before samples.wav", riff(fmt(), listing, DATA), Heard()
    yield "list behind samples.wav", riff(fmt(), DATA, listing), Heard()
    yield "odd list.wav", riff(fmt(), chunk(b"LIST", b"INFOx"), DATA), Heard()
    yield "list of 4 GiB.wav", riff(fmt(), chunk(b"LIST", b"INFO", 0xFFFFFFF0), DATA), NOT_AUDIO
    yield "list longer than the file.wav", riff(fmt(), chunk(b"LIST", b"INFO", 10**6), DATA), NOT_AUDIO
    yield "list behind samples of 4 GiB.wav", riff(fmt(), DATA, chunk(b"LIST", b"INFO", 0xFFFFFFF0)), Heard()
    yield "samples before format.wav", riff(DATA, fmt()), NOT_AUDIO
    yield "no format.wav", riff(DATA), NOT_AUDIO
    yield "no samples.wav", riff(fmt(), listing), NOT_AUDIO
    yield "samples twice.wav", riff(fmt(), DATA, DATA), NOT_AUDIO
    yield "format twice.wav", riff(fmt(), fmt(), DATA), NOT_AUDIO
    yield "format of 4 GiB.wav", riff(chunk(b"fmt ", fmt()[8:], 0xFFFFFFF0), DATA), NOT_AUDIO
    yield "a hundred chunks.wav", riff(fmt(), chunk(b"JUNK", b"12") * 100, DATA), Heard()
    yield "ten thousand empty chunks.wav", riff(fmt(), chunk(b"JUNK", b"") * 10_000, DATA), NOT_AUDIO
    yield "broadcast.wav", riff(chunk(b"bext", bytes(602)), fmt(), DATA), Heard()
    yield "broken cue.wav", riff(fmt(), chunk(b"cue ", struct.pack("<I", 0xFFFFFFFF)), DATA), Heard()
    yield "broken sampler.wav", riff(fmt(), chunk(b"smpl", bytes(28) + b"\xff" * 8), DATA), Heard()
    yield "riff size zero.wav", WAV[:4] + bytes(4) + WAV[8:], Heard()
    yield "rf64.wav", encoded(kind="RF64"), "is RF64, not one of WAV"
    yield "sony.w64", encoded(kind="W64"), "is W64, not one of WAV"
    yield "big endian.wav", encoded(endian="BIG"), Heard()
    yield "avi.wav", riff(fmt(), DATA, form=b"AVI "), NOT_AUDIO


def _codecs() -> Iterator[tuple]:
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "GSM610"):
        yield f"{subtype}.wav", encoded(subtype=subtype), Heard()
    # Blocks of these hold more samples than were written; the rest is silence.
    for subtype, more in (("IMA_ADPCM", 272), ("MS_ADPCM", 192), ("G721_32", 40), ("NMS_ADPCM_32", 0)):
        yield f"{subtype}.wav", encoded(subtype=subtype), Heard(SECONDS + more / RATE)
        yield f"half {subtype}.wav", encoded(subtype=subtype)[:2000], "bytes of samples and holds"
    yield "aiff.aiff", encoded(kind="AIFF"), Heard()
    yield "half.aiff", encoded(kind="AIFF")[:8000], "bytes of samples and holds"
    yield "aifc float.aiff", encoded(kind="AIFF", subtype="FLOAT"), Heard()
    yield "sun.au", encoded(kind="AU"), "is AU, not one of WAV"
    yield "apple.caf", encoded(kind="CAF"), "is CAF, not one of WAV"
    yield "matlab.mat", encoded(kind="MAT5"), "is MAT5, not one of WAV"
    yield "guessed by its name.vox", bytes(1000), "is RAW, not one of WAV"
    yield "headerless.raw", SAMPLES, "is RAW, which has no header"


def _samples() -> Iterator[tuple]:
    def floats(value: float, place: int = 100, subtype: str = "FLOAT") -> bytes:
        samples = TONE.copy()
        samples[place] = value
        return encoded(samples, subtype=subtype)

    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus inf", -np.inf)):
        yield f"{name}.wav", floats(value), "has 1 NaN or infinite samples"
        yield f"{name} double.wav", floats(value, subtype="DOUBLE"), "has 1 NaN or infinite samples"
    yield "nan at the end.wav", floats(np.nan, -1), "has 1 NaN or infinite samples"
    yield "all nan.wav", encoded(np.full(800, np.nan), subtype="FLOAT"), "has 800 NaN or infinite samples"
    yield "beyond float.wav", floats(1e300, subtype="DOUBLE"), "has 1 NaN or infinite samples"
    yield "integers as floats.wav", encoded(TONE * 32768, subtype="FLOAT"), "over the limit of 16"
    yield "loud.wav", encoded(TONE * 30, subtype="FLOAT"), Heard(level=30 * LOUD)
    yield "denormal.wav", encoded(np.full(8000, 1e-40), subtype="DOUBLE"), Heard(level=0.0)
    yield "offset.wav", encoded(np.full(8000, 0.5)), Heard(level=0.5)
    yield "offset to the rail.wav", encoded(np.full(8000, -1.0)), Heard(level=1.0)
    yield "clipped.wav", encoded(np.sign(TONE)), Heard(level=1.0)
    yield "silence.wav", encoded(np.zeros(8000)), Heard(level=0.0)
    yield "silence.flac", encoded(np.zeros(8000), "FLAC"), Heard(level=0.0)
    yield "opposite channels.wav", encoded(np.stack([TONE, -TONE], axis=1)), Heard(level=0.0)
    for count in (1, 2, 39, 159, 160, 399):
        yield f"{count} samples.wav", encoded(np.full(count, 0.25)), Heard(count / RATE, 0.25)
    yield "one sample at 384 kHz.wav", encoded(np.full(1, 0.25), rate=384000), Heard(1 / 384000, 0.25)
    yield "one sample.flac", encoded(np.full(1, 0.25), "FLAC"), Heard(1 / RATE, 0.25)
    yield "too long.wav", encoded(np.zeros(2_400_401), rate=4000, subtype="PCM_U8"), "lasts 600.1 s"
    yield "too long.flac", encoded(np.zeros(2_400_401, dtype="int16"), "FLAC", 4000), "lasts 600.1 s"
    yield "too many samples.flac", _grown(encoded(TONE, "FLAC", 384000), 1 << 27), "has 134217728 samples"
    yield "too large.wav", _sparse(WAV, 3 << 30), "has 3221225472 bytes"


def _compressed() -> Iterator[tuple]:
    whole = {kind: encoded(NOISE, kind) for kind in ("FLAC", "OGG", "MP3")}
    for kind, data in whole.items():
        end = f".{kind.lower()}"
        yield f"whole{end}", data, LONG
        for share in (0.02, 0.3, 0.6, 0.95):
            yield f"cut at {share:.0%}{end}", data[: int(share * len(data))], CUT
        yield f"twice{end}", data + data, "holds several recordings"
        yield f"junk behind{end}", data + b"junk" * 100, LONG
    flac, ogg, mp3 = whole.values()
    yield "a byte short.flac", flac[:-1], CUT
    yield "a byte short.ogg", ogg[:-1], CUT
    yield "unknown length.flac", flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:], "declares no length"
    yield "a lie about its length.flac", _grown(flac, 4 * 48000), CUT
    yield "overwritten.flac", flac[:30000] + bytes(2000) + flac[32000:], CUT
    yield "overwritten.ogg", ogg[:9000] + bytes(2000) + ogg[11000:], "has a broken or missing Ogg page"
    yield "without a page.ogg", _without_page(ogg, 3), "has a broken or missing Ogg page"
    yield "junk before.flac", b"junk" * 100 + flac, NOT_AUDIO
    yield "junk before.ogg", b"junk" * 100 + ogg, NOT_AUDIO
    tag = b"ID3\x04\0\0" + bytes([0, 0, 7, 0x68]) + bytes(1000)
    yield "tagged.mp3", tag + mp3, LONG
    yield "tag alone.mp3", tag, NOT_AUDIO
    yield "cut tag.mp3", tag[:500], NOT_AUDIO
    yield "tag of 256 MB.mp3", b"ID3\x04\0\0" + b"\x7f" * 4 + mp3, NOT_AUDIO
    yield "one frame.mp3", mp3[:200], NOT_AUDIO


def _disguises() -> Iterator[tuple]:
    yield "a wav.mp3", WAV, Heard()
    yield "a wav.flac", WAV, Heard()
    yield "a wav without extension", WAV, Heard()
    yield "a wav.txt", WAV, Heard()
    yield "a flac.wav", encoded(kind="FLAC"), Heard()
    yield "an ogg.wav", encoded(NOISE, "OGG"), LONG
    yield "an mp3.wav", encoded(NOISE, "MP3"), LONG
    yield "a wav.raw", WAV, "is RAW, which has no header"
    yield "a picture.wav", b"\x89PNG\r\n\x1a\n" + bytes(200), NOT_AUDIO
    yield "a page.mp3", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", NOT_AUDIO
    yield "a pointer.wav", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", NOT_AUDIO
    yield "an archive.wav", b"PK\x03\x04" + bytes(200), NOT_AUDIO
    yield "packed.wav", gzip.compress(WAV), NOT_AUDIO
    yield "a program.wav", b"\x7fELF\x02\x01\x01" + bytes(500), NOT_AUDIO
    yield "a pickle.wav", b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.", NOT_AUDIO
    yield "sixteen-bit letters.wav", "RIFF of letters".encode("utf-16") * 20, NOT_AUDIO
    yield "zeros.wav", bytes(1000), NOT_AUDIO
    yield "ones.wav", b"\xff" * 1000, NOT_AUDIO
    yield "chance.wav", np.random.default_rng(1).bytes(5000), NOT_AUDIO


def _places() -> Iterator[tuple]:
    yield "a folder.wav", Path.mkdir, "is not a file"
    yield "a pipe.wav", os.mkfifo, "is not a file"
    yield "a device.wav", lambda path: path.symlink_to("/dev/zero"), "is not a file"
    yield "a link to nothing.wav", lambda path: path.symlink_to("nowhere.wav"), NOTHING
    yield "a link to itself.wav", lambda path: path.symlink_to(path.name), "cannot be reached (Too many levels"
    yield "a link.wav", lambda path: path.symlink_to("good.wav"), Heard()
    yield "good.wav", WAV, Heard()
    yield "missing.wav", None, NOTHING
    yield "good.wav/inside.wav", None, NOTHING
    yield "nul\0.wav", None, NOTHING
    yield f"{'long' * 100}.wav", None, "cannot be reached (File name too long)"
    yield "deep/" * 1000 + "a.wav", None, "cannot be reached (File name too long)"
    yield "/dev/zero", None, "is not a file"
    yield "/dev/stdin.wav", None, NOTHING
    yield "..", None, "is not a file"
    yield "~/good.wav", None, NOTHING
    yield "https://example.org/a.wav", None, NOTHING
    yield "file:///etc/passwd", None, NOTHING
    yield "|cat good.wav", None, NOTHING
    yield "folder\\good.wav", None, NOTHING


def _names() -> Iterator[tuple]:
    spellings = ("Grüße 気持ち 🙂", "שלום עולם", "مرحبا", "a\nb", "tab\there", "esc\x1b[31mred", "-rf", "%s%n", "it's")
    for name in (
        *spellings,
        '"',
        "$(touch x)",
        "; true",
        " spaces ",
        "\u202egnp",
        "e\u0301",
        "\u200b",
        "CON",
        "a" * 250,
    ):
        yield f"{name}.wav", WAV, Heard()


def _grown(flac: bytes, frames: int) -> bytes:
    """A FLAC that declares another number of samples (the lowest 36 of 64 bits from byte 18)."""
    (packed,) = struct.unpack(">Q", flac[18:26])
    return flac[:18] + struct.pack(">Q", packed >> 36 << 36 | frames) + flac[26:]


def _without_page(ogg: bytes, number: int) -> bytes:
    pages = ogg.split(b"OggS")[1:]
    return b"".join(b"OggS" + page for place, page in enumerate(pages) if place != number)


def _sparse(data: bytes, size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)
        os.truncate(path, size)

    return write
