"""The audio border: es4r_toolkit.data.audio on files of any bytes.

python tests/fuzz/fuzz_audio.py -max_total_time=900
"""

from __future__ import annotations

from driving import fuzz

if __name__ == "__main__":
    fuzz("audio")
