"""es4r serve as a process of its own: under load, before generated requests, and as docs/serving.md says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed: pip install 'es4r-toolkit[serve]'")
pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")

from served import file_of, voiced
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from serving import run, running

from es4r_toolkit.cli import app
from es4r_toolkit.serving import server

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GUIDE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running("--body-megabytes=1") as address:
        yield address


def test_eight_clients_and_two_hundred_requests_good_and_bad(url):
    """The whole is benchmarks/serving.py."""
    found = run(url, clients=8, requests=25, turns=1, good_of_three=1)
    assert found["requests"] == 200
    assert found["not_deserved"] == []
    assert found["unequal"] == []
    assert found["statuses"][200] >= 60
    assert set(found["statuses"]) == {200, 400, 403, 406, 413, 415, 422}
    assert found["rss_growth"] < 0.05


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed: it is of the dev extra")
def test_generated_requests_find_no_failure_of_the_server(url, tmp_path):
    """Many more, of every phase, by the command in docs/serving.md."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", CHECKS]
    options = [
        "--phases=examples,fuzzing",
        "--max-examples=50",
        "--seed=1",
        "--request-timeout=120",
        "--no-color",
        "--warnings=off",
    ]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS), "SCHEMATHESIS_HOOKS": "serving_hooks"}
    done = subprocess.run([*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert int(passed[1]) == int(passed[2]) > 50


# -- docs/serving.md ---------------------------------------------------------------------------------------------------

EXAMPLES = re.findall(r"```bash\n(curl .*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_guide_gets_what_the_guide_says(url, tmp_path, example):
    for name in ("first.wav", "answer.wav", "last.wav"):
        (tmp_path / name).write_bytes(file_of(voiced(0.6, len(name))))
    script = example.replace("http://127.0.0.1:8008", url).replace("curl ", "curl --fail-with-body -sS ")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "reply.wav" in example:
        assert (tmp_path / "reply.wav").read_bytes()[:4] == b"RIFF"
    else:
        assert done.stdout


def test_the_guide_has_an_example_of_each_form():
    whole = "\n".join(EXAMPLES)
    for mark in ("-F audio=@", "base64 -w0", "Accept: audio/wav", "Accept: text/event-stream", "/metrics", "/v1/model"):
        assert mark in whole


def test_the_guide_names_every_error():
    from es4r_toolkit.serving.faults import KINDS

    for code, kind in KINDS.items():
        assert f"| {kind.status} | `{code}` |" in GUIDE


def test_the_guide_states_the_limits_as_they_are():
    from es4r_toolkit.serving.limits import Limits

    for name, value in vars(Limits()).items():
        assert f"| `{name}` | {value:,} |" in GUIDE


# -- the command -------------------------------------------------------------------------------------------------------


class Idle:
    """Stands in for a server that would run until it is stopped."""

    def run(self, sockets: list) -> None:
        self.sockets = sockets


def serve(monkeypatch, *arguments: object, status: int = 0):
    apps = []

    def take(application: object, grace: float) -> Idle:
        apps.append(application)
        return Idle()

    monkeypatch.setattr(server, "server_of", take)
    result = CliRunner().invoke(app, ["serve", "--port", "0", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result


def test_it_stays_on_this_machine_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("ES4R_SERVE_TOKEN", raising=False)
    quiet = serve(monkeypatch)
    assert quiet.stdout.startswith("http://127.0.0.1:")
    assert quiet.stderr == ""
    loud = serve(monkeypatch, "--host", "0.0.0.0")
    assert "0.0.0.0 can be reached from other machines, by everybody, for there is no authentication" in loud.stderr


def test_a_token_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("ES4R_SERVE_TOKEN", "secret")
    told = serve(monkeypatch, "--host", "0.0.0.0")
    assert "by whoever has the token; nothing is encrypted" in told.stderr
    assert "secret" not in told.output
    missing = serve(monkeypatch, "--token-variable", "NO_SUCH_VARIABLE", status=1)
    assert "NO_SUCH_VARIABLE: is not set" in missing.stderr


def test_what_cannot_be_served_is_one_line(monkeypatch, tmp_path):
    for arguments in (["--host", "192.0.2.1"], ["--host", "no.such.host.invalid"], ["--model", tmp_path]):
        result = serve(monkeypatch, *arguments, status=1)
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1
    assert serve(monkeypatch, "--running", "0", status=2)
