"""A process that speaks: requests on stdin, samples on stdout, one forked child a request.

espeak-ng keeps state between calls, so a repeated sentence differs from its first rendering. This process loads
the library once and never speaks; a child forked from it for each request speaks once and ends. Every request is
thus the first call of a process, bit-identical whenever it is made, and a crash of the library costs one request.

It is run by path (``python -I espeak_worker.py LIBRARY DATA``) and imports the standard library only, so that it
starts in a few hundredths of a second and forks in a millisecond.

A request is a length (uint32, little-endian) and that many bytes of JSON: ``text, voice, rate, pitch,
pitch_range, volume, word_gap, seconds``. A reply is a sample rate and a length (uint32 each) and that many bytes
of int16 samples; sample rate 0 says that the bytes are an error message in UTF-8. One reply comes before any
request: the sample rate and the version of espeak-ng as text.
"""

import ctypes
import json
import os
import select
import signal
import struct
import sys
import time

SYNCHRONOUS_RETRIEVAL = 2
DO_NOT_EXIT = 0x8000
UTF8_NO_MARKUP = 1
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "pitch_range": 4, "word_gap": 7}
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def load(library_path, data_path):
    """Load and initialise espeak-ng; give the library, its sample rate (Hz) and its version."""
    library = ctypes.CDLL(library_path)
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    sample_rate = library.espeak_Initialize(SYNCHRONOUS_RETRIEVAL, 0, data_path.encode(), DO_NOT_EXIT)
    if sample_rate <= 0:
        raise OSError(f"espeak_Initialize gave {sample_rate} with the data in {data_path}")
    # Initialising seeds the library's own generator from the clock; voices with breath draw their noise from it.
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    ctypes.CDLL(None).srand(1)
    # The list of voices comes from reading some 250 files; made here, each child inherits it.
    library.espeak_ListVoices(None)
    return library, sample_rate, library.espeak_Info(None).decode()


def speak(library, request):
    """Speak one request and give its samples as bytes; raise ValueError where espeak-ng refuses it."""
    chunks = []

    @CALLBACK
    def collect(samples, count, events):
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    if library.espeak_SetVoiceByName(request["voice"].encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {request['voice']!r}")
    for name, number in PARAMETERS.items():
        if library.espeak_SetParameter(number, request[name], 0) != 0:
            raise ValueError(f"espeak-ng refuses {name} {request[name]!r}")
    library.espeak_SetSynthCallback(collect)
    text = request["text"].encode() + b"\0"
    if library.espeak_Synth(text, len(text), 0, 1, 0, UTF8_NO_MARKUP, None, None) != 0:
        raise ValueError("espeak-ng refuses the text")
    return b"".join(chunks)


def speak_in_child(library, sample_rate, request):
    """Fork a child that speaks the request; give (sample rate, samples) or (0, message)."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer_and_exit(library, sample_rate, request, writer)
    os.close(writer)
    reply = _read_until(reader, time.monotonic() + request["seconds"])
    os.close(reader)
    if reply is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if reply is None:
        return 0, f"took more than {request['seconds']:g} s".encode()
    if status != 0 or len(reply) < 4:
        return 0, f"espeak-ng ended with status {os.waitstatus_to_exitcode(status)}".encode()
    return struct.unpack("<I", reply[:4])[0], reply[4:]


def _answer_and_exit(library, sample_rate, request, writer):
    # Nothing may leave this function but through _exit: the child shares the parent's stdin and stdout.
    status = 1
    try:
        try:
            rate, body = sample_rate, speak(library, request)
        except (ValueError, KeyError, TypeError, ctypes.ArgumentError) as error:
            rate, body = 0, str(error).encode()
        with os.fdopen(writer, "wb") as stream:
            stream.write(struct.pack("<I", rate) + body)
        status = 0
    finally:
        os._exit(status)


def _read_until(reader, deadline):
    chunks = []
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        chunk = os.read(reader, 1 << 20)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def _send(stream, sample_rate, body):
    stream.write(struct.pack("<II", sample_rate, len(body)) + body)
    stream.flush()


def main(library_path, data_path):
    """Serve requests until stdin ends."""
    # A terminal's Ctrl-C reaches the whole group; the owner closes stdin when it is done with this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = sys.stdin.buffer
    replies = os.fdopen(os.dup(1), "wb")
    # What the library prints must not mix with the replies.
    os.dup2(2, 1)
    try:
        library, sample_rate, version = load(library_path, data_path)
    except (OSError, AttributeError) as error:
        _send(replies, 0, str(error).encode())
        return
    _send(replies, sample_rate, version.encode())
    while header := requests.read(4):
        request = json.loads(requests.read(struct.unpack("<I", header)[0]))
        _send(replies, *speak_in_child(library, sample_rate, request))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
