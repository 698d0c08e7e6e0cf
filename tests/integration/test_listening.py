"""A listening test from two systems' replies to figures: made, rated in a real browser, and reported."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from listening_case import SYSTEMS, TOPICS, WARM, make_case, run, write_lines

from es4r_toolkit.data.listening import ASPECTS, COLUMNS, read_key
from es4r_toolkit.metrics.bootstrap import Bootstrap

# What a rater thinks of the first system's replies: w(in), t(ie), l(ose), for the exam, the flat and the cat; the
# second system does not speak about the cat.
OPINION = {
    "DMOS-E": "ww",
    "DMOS-C": "wl",
    "DMOS-Q": "tl",
    "topic": "wwt",
    "emotion": "lll",
    "specificity": "wtl",
    "action": "ttt",
    "empathy": "wlw",
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The folder of a listening test."""
    folder = tmp_path_factory.mktemp("listening")
    run(*make_case(folder / "case"), "--output", folder / "test")
    return folder / "test"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser) -> Iterator[object]:
    """A page without a network; an error on it fails the test."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(60_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda fault: faults.append(str(fault)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: request.url.startswith(("file:", "blob:")) or faults.append(request.url))
    yield page
    context.close()
    assert faults == []


def open_page(page, folder: Path) -> None:
    page.goto((folder / "listen.html").as_uri())


def begin(page, rater: str) -> None:
    page.locator("#name").fill(rater)
    page.keyboard.press("Enter")


def opinions_here(page) -> dict[str, str]:
    """Aspect -> left, same or right, as the rater thinks of the dialogue shown."""
    topic = next(topic for topic in TOPICS if topic in page.locator("#turns").inner_text())
    warm_left = WARM.format(topic) in page.locator(".reply-card").first.inner_text()
    sides = {"w": "left" if warm_left else "right", "t": "same", "l": "right" if warm_left else "left"}
    asked = [aspect for aspect, said in OPINION.items() if len(said) > TOPICS.index(topic)]
    return {aspect: sides[OPINION[aspect][TOPICS.index(topic)]] for aspect in asked}


def hear_by_keys(page) -> None:
    for letter in "ab":
        if page.locator(f"#reply-{letter.upper()}").count():
            page.keyboard.press(letter)
            page.locator(f".reply-card:has(#reply-{letter.upper()}) .heard").wait_for()


def rate_by_keys(page, most: int = 8) -> None:
    hear_by_keys(page)
    for side in list(opinions_here(page).values())[:most]:
        page.keyboard.press({"left": "1", "same": "2", "right": "3"}[side])


def go_to_speech(page) -> None:
    """On to the first dialogue that is asked on speech too."""
    while not page.locator("#reply-A").count():
        rate_by_keys(page)
        page.keyboard.press("Enter")


def rate_by_mouse(page) -> None:
    for player in page.locator(".reply-card audio").all():
        player.click(position={"x": 22, "y": 18})  # where Chromium draws the play button
        page.locator(f".reply-card:has(#{player.get_attribute('id')}) .heard").wait_for()
    for aspect, side in opinions_here(page).items():
        question = page.locator(f'fieldset[data-aspect="{aspect}"]')
        question.locator("label").nth(("left", "same", "right").index(side)).click()


def download_by_keys(page, to: Path) -> Path:
    page.locator("#thanks").wait_for()
    page.keyboard.press("Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    download.value.save_as(to / download.value.suggested_filename)
    return to / download.value.suggested_filename


def played(page, player: str, beyond: float) -> float:
    """How far a player is (seconds), once it is beyond that; the page allows no script to wait inside it."""
    for _ in range(600):
        seconds = page.locator(player).evaluate("one => one.currentTime")
        if seconds > beyond:
            return seconds
        page.wait_for_timeout(50)
    pytest.fail(f"{player} stands at {seconds} s, not beyond {beyond}")


def shares(preference: dict) -> list[float]:
    return [preference[outcome] for outcome in ("win", "tie", "lose")]


# -- in the browser ---------------------------------------------------------------------------------------------------


def test_a_session_by_keyboard_with_a_break_gives_the_figures_of_the_raters_opinions(page, made, tmp_path):
    open_page(page, made)
    page.keyboard.type("Jörg 7")  # the cursor is where the name goes
    page.keyboard.press("Enter")
    rate_by_keys(page)
    page.keyboard.press("Enter")
    assert page.locator("#place").inner_text() == "Dialogue 2 of 3"
    rate_by_keys(page, most=3)
    ticked = page.locator("#questions input:checked").evaluate_all("all => all.map(one => one.name + one.value)")
    page.reload()
    assert page.locator("#place").inner_text() == "Dialogue 2 of 3"
    again = page.locator("#questions input:checked").evaluate_all("all => all.map(one => one.name + one.value)")
    assert (again, len(again)) == (ticked, 3)
    for side in list(opinions_here(page).values())[3:]:
        page.keyboard.press({"left": "1", "same": "2", "right": "3"}[side])
    page.keyboard.press("Enter")
    rate_by_keys(page)
    page.keyboard.press("Enter")
    results = download_by_keys(page, tmp_path)

    assert results.name == f"listening_{read_key(made / 'listen_key.json').test}_Jörg_7.csv"
    rows = list(csv.DictReader(io.StringIO(results.read_text(encoding="utf-8"))))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 3 * 2 + 5 * 3
    assert not [name for name in (*SYSTEMS, "d-exam") if name in results.read_text(encoding="utf-8")]
    report = json.loads(run("listen-report", results, "--key", made / "listen_key.json", "--json").stdout)
    assert report["systems"] == list(SYSTEMS)
    assert report["left_out"] == []
    assert report["raters"]["Jörg 7"]["answered"] == 21
    found = report["aspects"]
    assert list(found) == list(ASPECTS)
    assert shares(found["DMOS-E"]) == [1, 0, 0]
    assert shares(found["DMOS-C"]) == [0.5, 0, 0.5]
    assert shares(found["DMOS-Q"]) == [0, 0.5, 0.5]
    assert shares(found["topic"]) == [0.6667, 0.3333, 0]
    assert shares(found["emotion"]) == [0, 0, 1]
    assert shares(found["specificity"]) == [0.3333, 0.3333, 0.3333]
    assert shares(found["action"]) == [0, 1, 0]
    assert shares(found["empathy"]) == [0.6667, 0, 0.3333]
    assert found["empathy"]["net"] == 0.3333
    assert found["topic"]["win_interval"] == [round(end, 4) for end in Bootstrap(3).mean([1, 1, 0])]
    assert found["topic"]["alpha"] is None  # a single rater


def test_a_session_by_mouse_and_a_second_rater_on_the_same_browser(page, made, tmp_path):
    open_page(page, made)
    files = []
    for rater, rate in (("Anna", rate_by_mouse), ("Ben", rate_by_keys)):
        page.locator("#name").fill(rater)
        page.get_by_role("button", name="Begin").click()
        for _ in TOPICS:
            rate(page)
            page.get_by_role("button", name="Next").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download results").click()
        files.append(tmp_path / download.value.suggested_filename)
        download.value.save_as(files[-1])
        page.get_by_role("button", name="Next rater").click()
    done = run("listen-report", *files, "--key", made / "listen_key.json", "--output", tmp_path)
    assert "specificity" in done.stdout
    report = json.loads((tmp_path / "listening.json").read_text())
    assert set(report["raters"]) == {"Anna", "Ben"}
    assert report["aspects"]["specificity"]["ratings"] == 6
    assert report["aspects"]["specificity"]["alpha"] == 1
    assert report["aspects"]["specificity"]["agreement"] == 1
    assert shares(report["aspects"]["empathy"]) == [0.6667, 0, 0.3333]
    page.goto((tmp_path / "listening.html").as_uri())
    assert page.locator("h1").inner_text() == "Sonnenblume against Quarzsand"
    assert page.locator("img").evaluate_all("all => all.map(one => one.naturalWidth > 0)") == [True, True]


def test_sound_really_plays_and_one_at_a_time(page, tmp_path):
    run(*make_case(tmp_path / "case", seconds=30.0), "--output", tmp_path, "--questions", "speech")
    open_page(page, tmp_path)
    begin(page, "Anna")
    page.keyboard.press("a")
    first = played(page, "#reply-A", beyond=0.2)
    played(page, "#reply-A", beyond=first + 0.2)
    page.keyboard.press("b")
    played(page, "#reply-B", beyond=0.1)
    assert page.locator("#reply-A").evaluate("one => one.paused")
    page.keyboard.press("b")
    assert page.locator("#reply-B").evaluate("one => one.paused")
    page.keyboard.press("d")
    played(page, "#turns audio", beyond=0.1)
    assert page.locator(".heard").count() == 0


def test_nothing_is_passed_over(page, made):
    """Neither a question without an answer nor a reply that was not heard to its end."""
    open_page(page, made)
    begin(page, "=HYPERLINK(1)")
    assert "Please write a name" in page.locator("#refusal").inner_text()
    begin(page, "Anna")
    go_to_speech(page)
    for _ in OPINION:
        page.keyboard.press("2")
    page.locator("#place").focus()
    page.keyboard.press("Enter")
    assert page.locator("#status").inner_text() == "Please hear both replies to the end first."
    page.get_by_role("button", name="Stop, or change rater").click()
    begin(page, "Ben")
    go_to_speech(page)
    hear_by_keys(page)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    assert page.locator("#status").inner_text() == "7 questions are still open."


def test_every_control_has_a_name_and_is_reached_by_tab(page, made):
    open_page(page, made)
    begin(page, "Anna")
    go_to_speech(page)
    seen = page.locator("main").aria_snapshot()
    assert 'group "Emotion Whose voice' in seen
    assert 'radio "A better"' in seen
    assert 'progressbar "Dialogues rated"' in seen
    assert page.locator("audio").evaluate_all("all => all.map(one => one.ariaLabel)") == [
        "Turn 1, speaker",
        "Reply A",
        "Reply B",
    ]
    page.evaluate("document.getElementById('place').focus()")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(e => e.id || e.name || e.textContent)(document.activeElement)"))
    assert {"reply-A", "reply-B", "play-dialogue", "next", "shortcuts", "Download results so far", *OPINION} <= reached


def test_single_key_shortcuts_can_be_switched_off(page, made):
    open_page(page, made)
    begin(page, "Anna")
    page.locator("#shortcuts").uncheck()
    page.keyboard.press("1")
    assert page.locator("#questions input:checked").count() == 0
    page.locator("#shortcuts").check()
    page.keyboard.press("1")
    assert page.locator("#questions input:checked").count() == 1


def test_each_rater_has_an_order_of_their_own_and_sees_each_side_first_half_the_time(page, tmp_path):
    for system in SYSTEMS:
        records = [{"id": f"d{number}", "response": f"{number}", "reference": "I see."} for number in range(4)]
        write_lines(tmp_path / system / "predictions.jsonl", records)
    run("listen", *(tmp_path / system / "predictions.jsonl" for system in SYSTEMS), "--output", tmp_path)
    orders = []
    for rater in ("r1", "r2", "r1"):
        open_page(page, tmp_path)
        page.evaluate("localStorage.clear()")
        page.reload()
        begin(page, rater)
        for _ in range(4):
            for _ in range(5):
                page.keyboard.press("1")
            page.keyboard.press("Enter")
        rows = list(csv.DictReader(io.StringIO(download_by_keys(page, tmp_path).read_text())))
        assert {row["answer"] == row["shown_first"] for row in rows} == {True}
        items = {row["item"]: row["shown_first"] for row in rows}
        assert sorted(items.values()) == ["x"] * 2 + ["y"] * 2
        orders.append(list(items.items()))
    assert orders[0] == orders[2]
    assert [item for item, _ in orders[0]] != [item for item, _ in orders[1]]


def test_a_browser_that_keeps_nothing_says_so_and_still_works(page, made):
    page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } })")
    open_page(page, made)
    begin(page, "Anna")
    assert page.locator("#unkept").is_visible()
    asked = len(opinions_here(page))
    rate_by_keys(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download results so far").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 1 + asked


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_hangs_over_the_side_of_the_screen(page, made, width):
    page.set_viewport_size({"width": width, "height": 800})
    open_page(page, made)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    begin(page, "Anna")
    assert page.locator("#rating").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
