"""Coverage-guided fuzzing of one target: atheris (pip install atheris), which brings libFuzzer, drives it.

    python tests/fuzz/fuzz_audio.py -max_total_time=900

What is given after the script's name goes to libFuzzer. What it learned lies in results/fuzz/<target>, and a later
run starts from there; an input that breaks the target is written to results/fuzz/<target>-findings.
"""

from __future__ import annotations

import sys
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "results" / "fuzz"
# A tokenizer is no Python: no new path tells a good input, so long ones are kept as they are.
OWN_LIMITS = {"prompt": ["-reduce_inputs=0", "-len_control=0", "-max_len=200"]}
# What is watched for new paths: our own readers, and the Python that they stand on.
WATCHED = ("es4r_toolkit", "soundfile", "json", "ruamel", "hyperpyyaml", "chat_tokenizers")


def fuzz(target: str) -> None:
    """Fuzz a target of targets.py until libFuzzer's limits are reached."""
    import atheris

    with atheris.instrument_imports(include=list(WATCHED)):
        import targets

    known, findings = RESULTS / target, RESULTS / f"{target}-findings"
    for folder in (known, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(targets.seeds(target)):
        (known / f"seed-{place}").write_bytes(seed)
    # Twenty seconds for an input, two gigabytes for them all.
    limits = ["-timeout=20", "-rss_limit_mb=2500", "-max_len=20000", *OWN_LIMITS.get(target, ())]
    options = [*limits, f"-artifact_prefix={findings}/", *sys.argv[1:]]
    atheris.Setup([sys.argv[0], *options, str(known)], targets.TARGETS[target])
    atheris.Fuzz()
