"""The manifest readers: JSON, JSON lines and tables of any bytes.

python tests/fuzz/fuzz_manifest.py -max_total_time=900
"""

from __future__ import annotations

from driving import fuzz

if __name__ == "__main__":
    fuzz("manifest")
