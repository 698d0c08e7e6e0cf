"""A process that speaks: requests on stdin, samples on stdout, one forked child a request.

espeak-ng keeps state between calls, so a repeated sentence differs from its first rendering. This process loads
the library once and never speaks; a child forked from it for each request speaks once and ends. Every request is
thus the first call of a process, bit-identical whenever it is made, and a crash of the library costs one request.

It is run by path (``python -I espeak_worker.py LIBRARY DATA``) and imports the standard library only, so that it
starts in a few hundredths of a second and forks in a millisecond.

A request is a length (uint32, little-endian) and that many bytes of JSON: ``text, voice, seconds`` and either
``rate, pitch, pitch_range, volume, word_gap``, to speak, or ``phonemes``, to spell. A reply is a sample rate and a
length (uint32 each) and that many bytes: the length of a JSON object (uint32), the object, and int16 samples. The
object holds ``words``, for each its first character (from 0), its length and its first sample, or ``phonemes``, the
clauses of the text in IPA. Sample rate 0 says that the bytes are an error message in UTF-8. One reply comes before
any request: the sample rate and the version of espeak-ng as text.
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
IPA = 2
WORD = 1
PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "pitch_range": 4, "word_gap": 7}


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(Event))


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
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_char_p), ctypes.c_int, ctypes.c_int]
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
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
    """Speak one request and give its words and its samples; raise ValueError where espeak-ng refuses it."""
    chunks, words = [], []

    @CALLBACK
    def collect(samples, count, events):
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        place = 0
        while events and events[place].type:
            event, place = events[place], place + 1
            if event.type == WORD:
                words.append([event.text_position - 1, event.length, event.sample])
        return 0

    choose_voice(library, request["voice"])
    for name, number in PARAMETERS.items():
        if library.espeak_SetParameter(number, request[name], 0) != 0:
            raise ValueError(f"espeak-ng refuses {name} {request[name]!r}")
    library.espeak_SetSynthCallback(collect)
    text = request["text"].encode() + b"\0"
    if library.espeak_Synth(text, len(text), 0, 1, 0, UTF8_NO_MARKUP, None, None) != 0:
        raise ValueError("espeak-ng refuses the text")
    return {"words": words}, b"".join(chunks)


def spell(library, request):
    """The clauses of a request's text in IPA."""
    choose_voice(library, request["voice"])
    rest, clauses = ctypes.c_char_p(request["text"].encode()), []
    while rest.value:
        clause = library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8_NO_MARKUP, IPA)
        clauses.append((clause or b"").decode(errors="replace"))
    return {"phonemes": clauses}, b""


def choose_voice(library, name):
    """Speak as this voice from now on; raise ValueError where there is none."""
    if library.espeak_SetVoiceByName(name.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice {name!r}")


def speak_in_child(library, sample_rate, request):
    """Fork a child that answers the request; give (sample rate, answer) or (0, message)."""
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
            told, samples = spell(library, request) if request.get("phonemes") else speak(library, request)
            told = json.dumps(told).encode()
            rate, body = sample_rate, struct.pack("<I", len(told)) + told + samples
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
