"""The prompt renderer: nothing that is said becomes a control token.

python tests/fuzz/fuzz_prompt.py -max_total_time=900
"""

from __future__ import annotations

from driving import fuzz

if __name__ == "__main__":
    fuzz("prompt")
