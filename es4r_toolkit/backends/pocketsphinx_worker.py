"""The process behind PocketsphinxRecognizer; it knows nothing of this package.

A request is its length (uint32) and int16 samples at 16 kHz, an answer its length and the words in UTF-8.
"""

import signal
import struct
import sys

RATE = 16000


def main():
    """Answer requests until there are no more."""
    from pocketsphinx import Decoder

    # A terminal's Ctrl-C reaches the whole group; the owner closes stdin when it is done with this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    decoder = Decoder(samprate=RATE, loglevel="FATAL")
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(4)) == 4:
        samples = source.read(struct.unpack("<I", head)[0])
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        words = found.hypstr.encode() if found is not None else b""
        sink.write(struct.pack("<I", len(words)) + words)
        sink.flush()


if __name__ == "__main__":
    main()
