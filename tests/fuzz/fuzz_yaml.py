"""The YAML loader for models of strangers: what passes the allowlist touches nothing.

python tests/fuzz/fuzz_yaml.py -max_total_time=900
"""

from __future__ import annotations

from driving import fuzz

if __name__ == "__main__":
    fuzz("yaml")
