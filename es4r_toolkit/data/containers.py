"""What the containers of recordings declare, held against what their files hold; libsndfile says nothing of either."""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from pathlib import Path

from es4r_toolkit.errors import AudioError

CUT_SHORT = "it was cut short or is broken: copy, download or record it again"
# A WAV writer that streams to a pipe declares 2 or 4 GiB, far above any limit here, because it cannot go back.
STREAMED_SIZE = 0x7FFF0000
OGG = b"OggS"  # begins each page
# What stands once at the start of a stream: the first block of a FLAC, the frame of an MP3 that tells its length.
OPENINGS = {
    "FLAC": (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22"),
    "MP3": (b"Xing\x00\x00\x00\x0f", b"Info\x00\x00\x00\x0f"),
}
# Each byte with its bits in reverse.
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
SEVERAL = (
    "holds several recordings, one behind the other",
    "give each recording a file of its own, or join them with an audio editor",
)


def check_container(path: Path, kind: str, size: int) -> None:
    """Hold what a file says of its own size against the file, without decoding it.

    Arguments
    ---------
    path : Path
        The recording.
    kind : str
        Its format, as libsndfile names it.
    size : int
        Bytes of the file.

    Raises
    ------
    AudioError
        If it holds less than it declares, or further streams behind its first, which alone would be read.
    """
    if kind in ("WAV", "WAVEX", "AIFF"):
        _check_declared_size(path, size)
    elif kind == "OGG":
        _check_pages(path)


def begins_as_ogg(path: Path) -> bool:
    """Whether a file is an Ogg stream by its first bytes, or by those behind ID3 tags, which none may have."""
    with path.open("rb") as file:
        start = file.read(10)
        if start[:3] == b"ID3" and len(start) == 10:
            # Seven bits a byte.
            file.seek(10 + sum(byte % 128 << place for byte, place in zip(start[6:], (21, 14, 7, 0))))
            start = file.read(len(OGG))
        return start[: len(OGG)] == OGG


def check_alone(path: Path, kind: str) -> None:
    """Look through a file that is to be decoded for a second stream, which no header tells of.

    Raises
    ------
    AudioError
        If there is one: only the first would be read.
    """
    if kind in OPENINGS:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            starts = [place for mark in OPENINGS[kind] if (place := data.find(mark)) >= 0]
            first = min(starts, default=len(data))
            if any(data.find(mark, first + 1) >= 0 for mark in OPENINGS[kind]):
                raise AudioError(path, *SEVERAL)


def _check_declared_size(path: Path, size: int) -> None:
    """Hold the declared size of a RIFF or AIFF data chunk against the file; libsndfile shortens it in silence."""
    with path.open("rb") as file:
        order = "<" if file.read(12)[:4] == b"RIFF" else ">"
        while len(header := file.read(8)) == 8:
            name, declared = struct.unpack(f"{order}4sI", header)
            if name in (b"data", b"SSND"):
                held = size - file.tell()
                if held < declared < STREAMED_SIZE:
                    raise AudioError(path, f"declares {declared} bytes of samples and holds {held}", CUT_SHORT)
                return
            # Chunks are padded to even sizes.
            file.seek(declared + declared % 2, os.SEEK_CUR)


def _check_pages(path: Path) -> None:
    """Look for the page that ends an Ogg stream, for broken and missing ones, and for a stream behind it.

    libsndfile reads what whole pages there are of the first stream in silence.
    """
    begun = ended = False
    following: dict[int, int] = {}
    with path.open("rb") as file:
        while len(header := file.read(27)) == 27 and header[: len(OGG)] == OGG:
            flags, _, serial, number, checksum, count = struct.unpack("<xBqIIIB", header[4:])
            begins = bool(flags & 0x02)
            if begins and begun:
                raise AudioError(path, *SEVERAL)
            # Streams that run side by side begin before any goes on.
            begun = not begins
            segments = file.read(count)
            body = file.read(sum(segments))
            if len(segments) < count or len(body) < sum(segments):
                ended = False
                break
            unsigned = header[:22] + bytes(4) + header[26:]
            if _page_checksum(unsigned + segments + body) != checksum or following.get(serial, number) != number:
                raise AudioError(path, f"has a broken or missing Ogg page, number {number}", CUT_SHORT)
            following[serial], ended = (number + 1) % (1 << 32), bool(flags & 0x04)
    if not (ended and begun):
        raise AudioError(path, "lacks the page that ends an Ogg stream", CUT_SHORT)


def _page_checksum(page: bytes) -> int:
    """The checksum of an Ogg page: CRC-32 from the highest bit down, where zlib's goes from the lowest up."""
    mirrored = zlib.crc32(page.translate(MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(MIRRORED), "big")
