"""The README's commands and examples do what they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_brain_example_trains_a_step_in_a_folder_of_its_own(tmp_path):
    (script,) = (example for example in EXAMPLES if "sb.Brain" in example)
    head = "modules['head'].weight"
    *first, last = script.rstrip().splitlines()
    watched = [*first, f"before = {head}.clone()", last, f"print('trained', not torch.equal(before, {head}))"]
    (tmp_path / "plug.py").write_text("\n".join(watched))
    done = subprocess.run([sys.executable, "plug.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "trained True" in done.stdout


def test_every_linked_file_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("command", ["validate", "respond", "evaluate"])
def test_every_command_has_help_with_an_example(command):
    done = subprocess.run(
        [sys.executable, "-m", "es4r_toolkit.cli", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert f"es4r {command}" in done.stdout
