"""The figures of the study that pages quote are those of its records, and its tables can be made of them again."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "study"
# Rows of docs/plus.md -> the study's variants.
NAMES = {
    "normalization=none": "w/o norm",
    "dual_attention=none": "w/o dual",
    "dual_attention=inter": "w/o intra",
    "dual_attention=intra": "w/o inter",
    "normalization=none, dual_attention=none": "w/o norm and dual",
    "context=[fused]": "[fused] alone",
    "fusion=none": "w/o cross",
    "placement=inject": "inject",
    "kl_weight=0.1": "with KL",
}
PAGE = (ROOT / "docs" / "study.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recipe():
    """The study's scripts, importable by their bare names while the test runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "recipes" / "AffectProbe"))
        import study
        import study_tables

        yield study, study_tables
        for name in ("study", "study_tables"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def summary(recipe) -> dict:
    study, tables = recipe
    scores = [tables.Score.of(record) for record in study.whole_lines(KEPT / "runs.jsonl")]
    return tables.summarize(scores, study.read_plan(str(study.STUDY)))


@pytest.mark.parametrize(("name", "folder"), [("study.yaml", KEPT), ("full.yaml", KEPT / "full")])
def test_the_study_finds_its_records_again(recipe, tmp_path, name, folder):
    """A key that is added to the train YAML makes others of them, unless it is null: 90 runs would be trained anew."""
    study, _ = recipe
    runs = study.plan_runs(study.read_plan(str(study.STUDY.with_name(name))), tmp_path)
    assert {run.name_of_all for run in runs} == {
        study.names_of(line) for line in study.whole_lines(folder / "runs.jsonl")
    }
    # Some stand for all: composing each takes a while.
    few = [run for run in runs if run.name in ("seed 2", "fold 1") and run.variant in ("paper", "plus", "inject")]
    assert len(study.read_records(folder / "runs.jsonl", few)) == len(few) > 0


def test_the_tables_are_those_of_the_records(recipe, summary):
    _, tables = recipe
    assert json.loads((KEPT / "study.json").read_text()) == json.loads(json.dumps(summary))
    assert (KEPT / "study.md").read_text(encoding="utf-8") == tables.markdown(summary)


def test_the_page_shows_the_tables(summary):
    (shown,) = re.findall(r"<!-- study\.py -->\n\n(.*?)\n<!-- end of its tables -->", PAGE, re.DOTALL)
    assert shown.strip() == (KEPT / "study.md").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize("path", ["docs/study.md", "README.md"])
def test_what_is_quoted_is_the_mean(path, summary):
    """Such as "plus, recorded, affect: .665"; written so where a page quotes a mean in its text."""
    text = (ROOT / path).read_text(encoding="utf-8")
    quotes = re.findall(r"\(([\w\[\]/ ]+), (espeak|recorded),\s+(affect|trend|topic):\s+(\d?\.\d+)\)", text)
    assert quotes or path == "README.md"
    for variant, voices, slot, value in quotes:
        mean = summary["voices"][voices]["variants"][variant][slot]["mean"]
        decimals = len(value.split(".")[1])
        assert round(mean, decimals) == float(value), f"{path}: {variant}, {voices}, {slot} is {mean}"


def test_the_page_of_plus_shows_the_validation_figures(summary):
    """Its table is made of study.json."""
    page = (ROOT / "docs" / "plus.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"<!-- validation -->\n\n(.*?)\n\n<!-- end of validation -->", page, re.DOTALL)
    _, _, *rows = shown.splitlines()
    for line in rows:
        variant, *cells = (cell.strip(" *`") for cell in line.strip("|").split("|"))
        for voices, cell in zip(("espeak", "recorded"), cells, strict=True):
            last = summary["voices"][voices]["variants"][NAMES.get(variant, variant)]["curve"][-1]
            assert cell == f"{last['affect']:.3f}, {last['trend']:.3f}", (variant, voices)
    assert len(rows) == len(NAMES) + 1


def test_the_readme_and_the_card_have_the_figures_of_the_records(recipe, summary):
    study, tables = recipe
    scores = [tables.Score.of(record) for record in study.whole_lines(KEPT / "full" / "runs.jsonl")]
    full = tables.summarize(scores, study.read_plan(str(study.STUDY.with_name("full.yaml"))))
    plus = full["voices"]["espeak"]["variants"]["plus"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    recorded = summary["voices"]["recorded"]["variants"]
    for start, row in (
        ("| espeak voices, standard level", plus),
        ("| human voices (EmoDB)", recorded["plus"]),
        ("| the same without dual attention", recorded["w/o dual"]),
        ("| the same without speech", recorded["text only"]),
    ):
        (line,) = (line for line in readme.splitlines() if line.startswith(start))
        assert [float(cell) for cell in line.split("|")[2:5]] == [round(row[slot]["mean"], 3) for slot in tables.SLOTS]
    card = (ROOT / "es4r_toolkit" / "assets" / "affectprobe-small" / "README.md").read_text(encoding="utf-8")
    for slot in tables.SLOTS:
        own, mean = re.search(rf"\| {slot} \| ([\d.]+) \| ([\d.]+) \|", card).groups()
        assert (float(own), float(mean)) == (round(plus[slot]["each"][0], 3), round(plus[slot]["mean"], 3))
