"""The command line: exit status, one line for each fault, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.main import get_command
from typer.testing import CliRunner

from es4r_toolkit import __version__
from es4r_toolkit.cli import app
from es4r_toolkit.errors import BackendError

REAL = Path(__file__).parents[3] / "shared" / "data" / "avamerg_demo" / "dialogues.jsonl"


def run(*arguments: object, status: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert result.exit_code == status, result.output
    return result


def dialogue(conversation: str, **more: object) -> dict:
    history = [{"index": 0, "role": "speaker", "utterance": "I failed.", "audio_path": "a.wav"}]
    return {"conversation_id": conversation, "dialogue_history": history, **more}


@pytest.fixture
def folder(tmp_path) -> Path:
    soundfile.write(str(tmp_path / "a.wav"), np.zeros(8000), 16000)
    return tmp_path


def write(folder: Path, *entries: object, name: str = "dialogues.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries))
    return path


# -- every command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *([name] for name in get_command(app).commands)])
def test_help_shows_an_example(command):
    output = run(*command, "--help").stdout
    assert "Example:" in output
    assert " ".join(["es4r", *command]) in output.split("Example:")[1]


def test_version():
    assert run("--version").stdout == f"es4r-toolkit {__version__}\n"


@pytest.mark.parametrize("wrong", [("validat",), ("validate",), ("validate", "a", "--nope"), ("respond", "a.json"), ()])
def test_wrong_usage_exits_2(wrong):
    run(*wrong, status=2)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from es4r_toolkit.cli import app;"
        "assert CliRunner().invoke(app, ['respond', '--help']).exit_code == 0;"
        "print(sorted({'torch', 'transformers', 'nltk', 'numpy', 'speechbrain'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["validate", "evaluate", "respond"])
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "does not exist"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\xff\xfe", "is not UTF-8"),
        ("a.json", b"{", "is not JSON"),
        ("a.txt", b"{}", "has the extension '.txt'"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, command, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    more = ["--output", tmp_path / "out"] if command == "respond" else []
    result = run(command, tmp_path / name, *more, status=1)
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {tmp_path / name}: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_installed_script_reports_without_a_traceback(tmp_path):
    script = [sys.executable, "-m", "es4r_toolkit.cli", "validate", str(tmp_path / "none.jsonl")]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"error: {tmp_path / 'none.jsonl'}: does not exist; correct the path\n"


# -- validate --------------------------------------------------------------------------------------------------------


def test_validate_counts_like_faults_and_names_some(folder):
    missing = [dialogue(f"m{place}") for place in range(5)]
    for entry in missing:
        entry["dialogue_history"][0]["audio_path"] = f"{entry['conversation_id']}.wav"
    output = run("validate", write(folder, dialogue("good"), *missing, "broken"), status=1).stdout
    assert "     5  dialogue_history[].audio_path … does not exist\n" in output
    assert "m0 (line 2): dialogue_history[0].audio_path 'm0.wav' does not exist" in output
    assert "and 2 more" in output
    assert "m4" not in output
    assert "     1  record is not JSON" in output
    assert "        line 7: record is not JSON" in output
    assert output.endswith("1 good, 6 rejected\n")


def test_validate_of_good_dialogues_exits_0(folder):
    assert run("validate", write(folder, dialogue("1"), dialogue("2"))).stdout == "2 good, 0 rejected\n"


def test_validate_prints_json_for_programs(folder):
    result = run("validate", write(folder, dialogue("ä"), {"dialogue_history": []}), "--json", status=1)
    report = json.loads(result.stdout)
    assert report["good"] == ["ä"]
    assert report["rejected"][0]["field"] == "conversation_id"
    assert set(report["rejected"][0]) == {"item", "line", "field", "problem", "mend"}


def test_validate_decodes_where_asked(folder):
    soundfile.write(str(folder / "a.wav"), np.full(10, np.nan, dtype="float32"), 16000, subtype="FLOAT")
    path = write(folder, dialogue("1"))
    run("validate", path)
    assert "NaN" in run("validate", path, "--decode", status=1).stdout


def test_a_name_cannot_steer_the_terminal(folder):
    result = run("validate", write(folder, dialogue("\x1b[31mred\nnew line", dialogue_history=[])), status=1)
    assert "\x1b" not in result.stdout
    assert "red new line" in result.stdout


@pytest.mark.skipif(not REAL.is_file(), reason="the AvaMERG demo dialogues do not lie beside the project")
def test_the_real_dialogues_are_good():
    assert run("validate", REAL, "--decode").stdout == "3 good, 0 rejected\n"


# -- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluate_writes_and_prints_the_metrics(tmp_path):
    table = {"affect": {"sad": ["so sorry"], "glad": ["wonderful"]}}
    write(tmp_path, table, name="slots.json")
    lines = [{"response": "so sorry", "reference": "so sorry", "slots": {"affect": "sad"}}]
    output = run("evaluate", write(tmp_path, *lines), "--output", tmp_path / "deep" / "out").stdout
    metrics = json.loads((tmp_path / "deep" / "out" / "metrics.json").read_text())
    assert metrics["bleu1"] == 1.0
    assert metrics["slot_accuracy"] == {"affect": 1.0}
    assert "bleu1          1.0000  [1.0000, 1.0000]\n" in output
    assert "affect         1.0000  [1.0000, 1.0000]  (chance 0.5000)\n" in output


def test_evaluate_names_each_bad_line_and_scores_the_others(tmp_path):
    path = write(tmp_path, {"response": "a b", "reference": "a b"}, "broken", {"response": "a"})
    result = run("evaluate", path, "--json", status=1)
    report = json.loads(result.stdout)
    assert (report["metrics"]["scored"], report["metrics"]["rejected"]) == (1, 2)
    assert report["metrics"] == json.loads((tmp_path / "metrics.json").read_text())
    assert [rejection["line"] for rejection in report["rejected"]] == [2, 3]
    first, second = result.stderr.splitlines()[:2]
    assert first.startswith(f"error: {path}, line 2: record is not JSON")
    assert second == f"error: {path}, line 3: reference is missing; write the true reply as a string"


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_evaluate_refuses_a_bad_slot_table(tmp_path, content):
    path = write(tmp_path, {"response": "a", "reference": "a"})
    if content is not None:
        write(tmp_path, content, name="table.json")
    result = run("evaluate", path, "--slots", tmp_path / "table.json", status=1)
    assert result.stderr.startswith(f"error: {tmp_path / 'table.json'}: ")


def test_an_output_folder_that_cannot_be_made_is_one_line(tmp_path):
    path = write(tmp_path, {"response": "a", "reference": "a"})
    result = run("evaluate", path, "--output", path / "inside", status=1)
    assert "cannot be made" in result.stderr


# -- respond ---------------------------------------------------------------------------------------------------------


class FakeResponse:
    sample_rate = 16000

    def __init__(self, text: str):
        self.text, self.waveform = text, torch.rand(160)

    def as_dict(self) -> dict:
        return {"text": self.text, "strategy": "comfort", "energies": [1.0]}


class FakeResponder:
    """Answers at once, and cannot answer a dialogue whose id says so; the command around it is what is tested."""

    loaded_from: object = "nothing"

    @classmethod
    def from_hparams(cls, source: object, **options: object) -> FakeResponder:
        cls.loaded_from, cls.options = source, options
        return cls()

    def respond(self, asked) -> FakeResponse:
        if asked.id == "fails":
            raise BackendError("voice", "has no breath", "wait")
        return FakeResponse(f"You said: {asked.history[-1].text}")


@pytest.fixture
def responder(monkeypatch):
    module = types.ModuleType("es4r_toolkit.inference")
    module.EmpathyResponder = FakeResponder
    monkeypatch.setitem(sys.modules, "es4r_toolkit.inference", module)
    FakeResponder.loaded_from = "nothing"
    return FakeResponder


def test_respond_writes_text_and_speech(folder, responder):
    path = folder / "one.json"
    path.write_text(json.dumps(dialogue("7")))
    result = run("respond", path, "--output", folder / "out")
    answer = json.loads((folder / "out" / "7" / "response.json").read_text())
    assert (answer["id"], answer["text"], answer["strategy"]) == ("7", "You said: I failed.", "comfort")
    assert soundfile.info(str(folder / "out" / "7" / "response.wav")).frames == 160
    assert responder.loaded_from is None
    lines = result.stdout.splitlines()
    assert lines == [f"7  [comfort]  You said: I failed.  {folder / 'out' / '7'}", "1 answered, 0 rejected"]


def test_respond_goes_on_past_bad_dialogues_and_counts_them(folder, responder):
    bad = dialogue("bad")
    bad["dialogue_history"][0]["audio_path"] = "none.wav"
    path = write(folder, dialogue("1"), bad, dialogue("fails"), "broken", dialogue("5"))
    result = run("respond", path, "--output", folder / "out", "--model", "some/folder", status=1)
    assert responder.loaded_from == "some/folder"
    assert sorted(entry.name for entry in (folder / "out").iterdir()) == ["1", "5"]
    assert result.stdout.endswith("2 answered, 3 rejected\n")
    where = "dialogue_history[0].audio_path"
    assert result.stderr.splitlines()[0].startswith(f"error: {path}, line 2 (bad): {where} 'none.wav' does not exist; ")
    assert result.stderr.splitlines()[1].startswith(f"error: {path}, line 4: record is not JSON")
    assert result.stderr.splitlines()[2] == "error: fails: voice: has no breath; wait"


def test_respond_prints_json_for_programs(folder, responder):
    path = write(folder, dialogue("1"), dialogue("fails"), "broken")
    report = json.loads(run("respond", path, "--output", folder / "out", "--json", status=1).stdout)
    assert [(answer["id"], answer["strategy"]) for answer in report["answered"]] == [("1", "comfort")]
    assert [rejection["item"] for rejection in report["rejected"]] == ["line 3", "fails"]


def test_respond_writes_predictions_where_there_are_references(folder, responder):
    known, other = ({"role": "listener", "utterance": text} for text in ("I am sorry.", "Oh."))
    labelled = {**dialogue("2"), "response": known, "slots": {"affect": "sadness"}}
    path = write(folder, dialogue("predictions.jsonl"), labelled, {**dialogue("3"), "response": other})
    run("respond", path, "--output", folder / "out", "--precision", "bf16")
    assert responder.options["run_opts"] == {"device": "cpu", "precision": "bf16", "feature_store": None}
    assert [json.loads(line) for line in (folder / "out" / "predictions.jsonl").read_text().splitlines()] == [
        {"id": "2", "response": "You said: I failed.", "reference": "I am sorry.", "slots": {"affect": "sadness"}},
        {"id": "3", "response": "You said: I failed.", "reference": "Oh."},
    ]
    assert (folder / "out" / "predictions.jsonl_2" / "response.wav").is_file()
    assert "scored         2" in run("evaluate", folder / "out" / "predictions.jsonl").stdout


def test_respond_keeps_every_answer_inside_the_output_folder(folder, responder):
    ids = ["../escape", "/absolute", "..", "a/b", "a_b", "A_B", "x" * 300]
    path = write(folder, *(dialogue(name) for name in ids))
    before = {entry.name for entry in folder.iterdir()}
    run("respond", path, "--output", folder / "out")
    assert {entry.name for entry in folder.iterdir()} - before == {"out"}
    answers = list((folder / "out").glob("*/response.json"))
    assert sorted(json.loads(answer.read_text())["id"] for answer in answers) == sorted(ids)


def test_an_answer_does_not_depend_on_its_neighbours(folder, responder):
    run("respond", write(folder, dialogue("1"), dialogue("2")), "--output", folder / "both")
    run("respond", write(folder, dialogue("2")), "--output", folder / "alone")
    run("respond", write(folder, dialogue("2")), "--output", folder / "other", "--seed", 1)
    both, alone, other = ((folder / name / "2" / "response.wav").read_bytes() for name in ("both", "alone", "other"))
    assert both == alone
    assert both != other


def test_respond_loads_no_model_where_every_dialogue_is_bad(folder, responder):
    run("respond", write(folder, "broken"), "--output", folder / "out", status=1)
    assert responder.loaded_from == "nothing"
