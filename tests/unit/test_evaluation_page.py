"""The page of es4r evaluate: figures with their intervals, and the worst replies first."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from es4r_toolkit.cli import app
from es4r_toolkit.data.predictions import Prediction
from es4r_toolkit.metrics.examples import examples
from es4r_toolkit.metrics.slots import SlotTable
from es4r_toolkit.report.evaluation_page import SCORES, write_evaluation
from es4r_toolkit.report.tables import comparison_table

SLOTS = {"affect": {"joy": ["so glad"], "anger": ["so angry"]}}
REFERENCE = "You sound so glad today."


def line(name: str, response: str, reference: str = REFERENCE, **more: object) -> dict:
    return {"id": name, "response": response, "reference": reference, "slots": {"affect": "joy"}, **more}


GOOD = line("good", REFERENCE)
CLOSE = line("close", "You sound so angry today.")
FAR = line("far", "Hm.")


def write(folder: Path, name: str, *lines: dict) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "slots.json").write_text(json.dumps(SLOTS))
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def page_of(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return (Path(arguments[0]).parent / "report.html").read_text(encoding="utf-8")


def shown(page: str) -> list[str]:
    return re.findall(r"<h3>(.*?)</h3>", page)


def test_the_worst_replies_come_first_slots_before_words(tmp_path):
    page = page_of(write(tmp_path, "p", GOOD, CLOSE, FAR))
    assert shown(page) == ["far", "close", "good"]
    assert "affect wrong" in page
    assert "affect right" in page


def test_against_another_system_it_begins_where_this_one_is_behind_most(tmp_path):
    ours = write(tmp_path, "ours", line("a", "Hm."), line("b", REFERENCE), line("c", "Hm."))
    theirs = write(tmp_path, "theirs", line("a", "Hm."), line("b", "Hm."), line("c", REFERENCE))
    page = page_of(ours, "--compare", theirs)
    assert shown(page) == ["c", "a", "b"]
    assert page.count("<h4>the other</h4>") == 3
    assert "Against the other system" in page


def test_what_was_spoken_can_be_heard_and_what_is_broken_is_named(tmp_path):
    for name in ("good", "far"):
        folder = tmp_path / "answers" / name
        folder.mkdir(parents=True)
        soundfile.write(folder / "response.wav", 0.1 * np.ones(800), 16000)
        (folder / "response.json").write_text(json.dumps({"id": name, "text": "x"}))
    (tmp_path / "answers" / "far" / "response.wav").write_bytes(b"RIFF")
    page = page_of(write(tmp_path / "answers", "predictions", GOOD, CLOSE, FAR))
    assert page.count("<audio") == 1
    assert 'aria-label="this system, good, 0.1 seconds"' in page
    assert "not played" in page


def test_a_text_is_shown_and_never_run(tmp_path):
    page = page_of(write(tmp_path, "p", line("<b>x</b>", "<script>alert(1)</script>", "</p>& so glad")))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    HTMLParser().feed(page)


def test_published_figures_stand_in_a_table_of_their_own_and_every_row_says_so(tmp_path):
    page = page_of(write(tmp_path, "p", GOOD), "--published")
    own, published = page.split("<h2>Published figures")
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", published.split("</section>")[0], re.DOTALL)
    assert rows
    assert all("<td>published</td>" in row for row in rows)
    assert "ES4R" not in own.split("</header>")[1]


def test_intervals_stand_below_the_scores(tmp_path):
    path = write(tmp_path, "p", GOOD, CLOSE, FAR)
    page = page_of(path)
    low, high = json.loads((tmp_path / "metrics.json").read_text())["interval"]["rougeL"]
    assert f"{low:.3f} to {high:.3f}" in page


def test_the_whole_row_of_scores_is_seen(tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    metrics = dict.fromkeys(("scored", "rejected", "empty_replies"), 9) | dict.fromkeys(SCORES, 0.4555)
    metrics["interval"] = {name: [0.4444, 0.4666] for name in SCORES}
    written = write_evaluation(tmp_path / "report.html", "All scores", metrics, [], [])
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(written.as_uri())
        hidden = page.locator(".scroll").evaluate("table => table.scrollWidth - table.clientWidth")
        browser.close()
    assert hidden == 0


@pytest.mark.parametrize(
    ("interval", "p", "differs"),
    [([0.1, 0.5], 0.049, True), ([0.1, 0.5], 0.053, False), ([-0.1, 0.5], 0.049, False), ([-0.5, -0.1], 0.001, True)],
)
def test_a_difference_is_one_where_its_interval_and_its_p_agree(interval, p, differs):
    row = {"first": 0.4, "second": 0.1, "difference": 0.3, "interval": interval, "p": p}
    table = comparison_table("Two", {"paired": 9, "other": "b", "metrics": {"bleu1": row}}, {})
    assert table.rows[0].cells[-1] == (f"{p:.3f}", "differs" if differs else "")
    assert '"differs": p is below 0.05, and 0 is not in the interval' in table.remark


@pytest.mark.parametrize(("first", "second", "merit"), [(GOOD, FAR, (1.0, 1.0)), (FAR, GOOD, (-1.0, -1.0))])
def test_merit_against_another_is_what_is_more_right(first, second, merit):
    table = SlotTable(SLOTS)
    systems = [[Prediction("1", 1, one["response"], REFERENCE, one["slots"])] for one in (first, second)]
    rouge = [[1.0 if one is GOOD else 0.0] for one in (first, second)]
    (example,) = examples(systems, table, rouge)
    assert example.merit == merit
