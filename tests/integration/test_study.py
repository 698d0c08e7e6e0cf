"""The study: what it runs, how it goes on, and what its tables say. A script of lines stands in for training."""

import csv
import json
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from es4r_toolkit.errors import DialogueError
from es4r_toolkit.hparams import compose, plain

SLOTS = {
    "affect": {"joy": ["glad"], "anger": ["cross"]},
    "trend": {"better": ["up"], "worse": ["down"]},
    "topic": {"work": ["office"], "home": ["roof"]},
}
# Answers a share of its dialogues right that its settings decide, and leaves what train.py would leave.
TRAIN = """
    import json, sys
    from pathlib import Path
    from es4r_toolkit.hparams import compose, plain

    hparams, values = sys.argv[1], dict(option[2:].split("=", 1) for option in sys.argv[2:])
    folder = Path(values["output_folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "trained.txt").open("a") as file:
        file.write(folder.name + chr(10))
    if "{failing}" and folder.name == "{failing}":
        sys.exit("broken on purpose")
    text = compose(hparams, {{key: YAML(value) for key, value in values.items()}})
    right = 40 if plain(text)["model"]["dual_attention"] == "none" else 80
    lines = [
        {{"response": ("glad" if n < right else "cross") + " up office", "reference": "glad up office",
          "slots": {{"affect": "joy", "trend": "better", "topic": "work"}}}}
        for n in range(100)
    ]
    (folder / "hyperparams.yaml").write_text(text)
    (folder / "predictions.jsonl").write_text(chr(10).join(map(json.dumps, lines)))
    (folder / "slots.json").write_text(json.dumps({slots}))
    epoch = {{"epoch": 1, "affect": 0.5, "trend": 0.5, "topic": 1.0, "seconds": 2.0}}
    (folder.parent / "data").mkdir(exist_ok=True)
    (folder.parent / "data" / "corpus.json").write_text(json.dumps({{"trend_from_last_affect": 0.6}}))
    (folder / "history.jsonl").write_text(json.dumps(epoch))
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "trained.safetensors").touch()
    (folder / "scores.json").write_text(json.dumps({{"affect": right / 100, "trend": 1.0, "topic": 1.0, "bleu4": 0.5}}))
"""
PLAN = {
    "voices": {
        "espeak": {"settings": {"level": "easy", "epochs": 1}, "runs": {"seed 1": {"seed": 1}, "seed 2": {"seed": 2}}}
    },
    "reference": "plus",
    "variants": {"plus": {}, "w/o dual": {"dual_attention": "none"}},
}


@pytest.fixture
def make_study(affectprobe, tmp_path, monkeypatch):
    study = affectprobe("study")

    def make(failing: str = "", plan: dict = PLAN):
        script = textwrap.dedent(TRAIN).replace("YAML(value)", "__import__('yaml_value').read(value)")
        (tmp_path / "yaml_value.py").write_text(
            "from ruamel.yaml import YAML\n\ndef read(text):\n    return YAML(typ='safe').load(text)\n"
        )
        (tmp_path / "fake_train.py").write_text(script.format(failing=failing, slots=SLOTS))
        monkeypatch.setattr(study, "TRAIN", tmp_path / "fake_train.py")
        with (tmp_path / "study.yaml").open("w") as file:
            YAML().dump(plan, file)
        return ["--study", str(tmp_path / "study.yaml"), "--output", str(tmp_path / "runs")]

    return study, make, tmp_path / "runs"


def trained(runs) -> list[str]:
    return sorted(line for path in runs.rglob("trained.txt") for line in path.read_text().split())


def test_every_run_is_trained_once_and_found_again(make_study, capsys):
    study, make, runs = make_study
    assert study.main(make()) == 0
    assert trained(runs) == ["plus", "plus", "w_o_dual", "w_o_dual"]
    assert study.main(make()) == 0
    assert len(trained(runs)) == 4, "what was finished was trained again"
    assert "4 of them finished" in capsys.readouterr().out
    rows = list(csv.DictReader((runs / "runs.csv").open()))
    assert [(row["variant"], row["run"], float(row["affect"])) for row in rows] == [
        ("plus", "seed 1", 0.8),
        ("plus", "seed 2", 0.8),
        ("w/o dual", "seed 1", 0.4),
        ("w/o dual", "seed 2", 0.4),
    ]
    variants = json.loads((runs / "study.json").read_text())["voices"]["espeak"]["variants"]
    assert variants["plus"]["affect"]["mean"] == 0.8
    assert "difference" not in variants["plus"]["affect"]
    assert variants["w/o dual"]["affect"]["difference"]["mean"] == -0.4
    assert "| *trend from the last affect* |  | 0.600 |" in (runs / "study.md").read_text()
    assert "| w/o dual | 0.400 [0." in (runs / "study.md").read_text()
    assert (runs / "study.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_scored_elsewhere_is_not_trained_again(make_study, tmp_path):
    """The tables hold every answer, so that a study can go on where its corpora and models are not."""
    study, make, runs = make_study
    tables = ["--tables", str(tmp_path / "tables")]
    assert study.main([*make(), *tables]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    shutil.rmtree(runs)
    assert study.main([*make(), *tables]) == 0
    assert not trained(runs)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    # Another plan with the same tables leaves the lines that it has not.
    smaller = {**PLAN, "variants": {"plus": {}}}
    assert study.main([*make(plan=smaller), *tables]) == 0
    records = tmp_path / "tables" / "runs.jsonl"
    assert sorted(records.read_bytes().splitlines()) == sorted(before["runs.jsonl"].splitlines())
    assert study.main([*make(), *tables]) == 0
    # A line that a kill cut short is not a score.
    records.write_bytes(before["runs.jsonl"][:-20])
    assert study.main([*make(), *tables]) == 0
    assert trained(runs) == ["w_o_dual"]
    assert records.read_bytes() == before["runs.jsonl"]


def test_a_failed_run_is_named_the_others_are_scored_and_it_is_tried_again(make_study, capsys):
    study, make, runs = make_study
    assert study.main(make(failing="w_o_dual")) == 1
    told = capsys.readouterr().err
    assert "failed: w/o dual, espeak seed 1" in told
    assert "broken on purpose" in (runs / "espeak" / "seed_1" / "w_o_dual.log").read_text()
    assert {row["variant"] for row in csv.DictReader((runs / "runs.csv").open())} == {"plus"}
    assert study.main(make()) == 0
    assert trained(runs).count("plus") == 2
    assert {row["variant"] for row in csv.DictReader((runs / "runs.csv").open())} == {"plus", "w/o dual"}


def test_a_study_that_is_told_to_end_ends_its_runs_and_says_so(make_study, tmp_path):
    """Else they would train on, unseen, beside the ones of the next try."""
    study, make, _ = make_study
    # Two runs of one corpus: the second waits for the first, and must not begin when that is ended.
    voices = {"espeak": {"settings": {"level": "easy"}, "runs": {"seed 1": {"seed": 1}}}}
    arguments = make(plan={**PLAN, "voices": voices})
    (tmp_path / "fake_train.py").write_text(
        "import os, time; from pathlib import Path\n"
        f"(Path({str(tmp_path)!r}) / f'pid_{{os.getpid()}}').touch()\ntime.sleep(60)\n"
    )
    script = (
        f"import sys; sys.path.insert(0, {str(study.RECIPE)!r}); import study; from pathlib import Path; "
        f"study.TRAIN = Path({str(tmp_path / 'fake_train.py')!r}); sys.exit(study.main({arguments!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (started := list(tmp_path.glob("pid_*"))) and time.monotonic() < until:
        time.sleep(0.1)
    process.terminate()
    told = process.communicate(timeout=30)[1]
    assert started
    assert "the same command goes on" in told
    assert process.returncode == 130
    assert len(list(tmp_path.glob("pid_*"))) == 1
    for path in tmp_path.glob("pid_*"):
        assert not Path(f"/proc/{path.name[4:]}").exists()


def test_runs_of_other_settings_are_not_taken_for_these(make_study, capsys):
    study, make, _ = make_study
    assert study.main(make()) == 0
    voices = {"espeak": {**PLAN["voices"]["espeak"], "settings": {"level": "easy", "epochs": 2}}}
    assert study.main(make(plan={**PLAN, "voices": voices})) == 1
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reference": "minus"}, "is no variant"),
        ({"variants": {}}, "has no variants"),
        ({"variants": {"plus": {}, "Plus ": {}}}, "two runs"),
        ({"variants": {"plus": None, "odd": {"dual_atention": "none"}}}, "did you mean dual_attention"),
        ({"variants": {"plus": {}, "more": {"dialogues": 9}}}, "changes the corpus"),
        ({"variants": {"plus": {}, "data": {"fusion": "none"}}}, "folder of a corpus"),
        ({"variants": {"plus": {}, "odd": {"max_grad_norm": 5.0}}}, "takes for itself"),
        ({"voices": {"espeak": {"settings": {}}}}, "has no runs"),
    ],
)
def test_a_wrong_plan_is_refused_before_anything_is_trained(make_study, capsys, changes, told):
    study, make, runs = make_study
    assert study.main(make(plan={**PLAN, **changes})) == 1
    assert told in capsys.readouterr().err
    assert not runs.exists()


def test_every_variant_of_the_study_is_a_system_that_can_be_named(affectprobe, tmp_path):
    study = affectprobe("study")
    plan = YAML(typ="safe").load(study.STUDY.read_text())
    runs = study.plan_runs(plan, tmp_path)
    assert len(runs) == len(plan["variants"]) * 6 == 90
    systems = [plain(compose(study.HPARAMS, run.settings)) for run in runs if run.corpus == ("recorded", "fold 1")]
    assert {system["fold"] for system in systems} == {1}
    full = YAML(typ="safe").load((study.STUDY.parent / "full.yaml").read_text())
    assert len(study.plan_runs(full, tmp_path)) == 3
    # No two variants are the same system.
    told = [json.dumps({**system, "output_folder": ""}, sort_keys=True, default=str) for system in systems]
    assert len(set(told)) == len(told)


def test_intervals_hold_both_what_dialogues_and_what_runs_vary(affectprobe):
    tables = affectprobe("study_tables")
    rng = np.random.default_rng(0)
    alike = [(rng.random(200) < 0.7).astype(float) for _ in range(3)]
    unlike = [(rng.random(200) < share).astype(float) for share in (0.4, 0.7, 1.0)]
    narrow, wide = (tables._mean(runs)["interval"] for runs in (alike, unlike))
    # Three runs of 200 with nothing between them: never narrower than the binomial's, 1.96 sqrt(.7 .3 / 600).
    binomial = 2 * 1.96 * np.sqrt(0.21 / 600)
    assert binomial < narrow[1] - narrow[0] < 2 * binomial
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_a_difference_of_the_same_answers_is_none(affectprobe):
    tables = affectprobe("study_tables")
    right = {slot: np.array([1.0, 0, 1, 1]) for slot in tables.SLOTS}
    guess = dict.fromkeys((*tables.SLOTS, tables.ORACLE), 0.5)
    scores = [tables.Score("v", "1", variant, right, guess, {"bleu4": 0.1}) for variant in ("plus", "other")]
    plan = {**PLAN, "voices": {"v": {"settings": {}}}, "variants": {"plus": {}, "other": {}}}
    summary = tables.summarize(scores, plan)
    row = summary["voices"]["v"]["variants"]["other"]["affect"]
    assert row["difference"] == {"mean": 0.0, "interval": [0.0, 0.0]}


def test_a_probe_is_not_told_its_answer_by_the_same_clip(affectprobe):
    """Turns of one group are the same here and share their label: only other groups may teach it."""
    tables = affectprobe("study_tables")
    rng = np.random.default_rng(1)
    turns = np.repeat(rng.normal(size=(50, 30)), 4, axis=0)
    labels = np.repeat(rng.integers(2, size=50).astype(str), 4).tolist()
    assert tables.probe(turns, labels, groups=np.arange(200)) > 0.8
    assert tables.probe(turns, labels, groups=np.arange(200) // 4) < 0.7


def test_representations_that_are_not_of_the_test_set_are_refused(affectprobe, tmp_path):
    tables = affectprobe("study_tables")
    path = tmp_path / "representations.jsonl"
    path.write_text(json.dumps({"id": "a", "turns": {"after": [[1.0, 2.0]]}}))
    with pytest.raises(DialogueError, match="does not fit"):
        tables._diagnose(path, [])
