"""es4r demo in a real browser: heard, seen, interrupted, and apart for each visitor."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from demoed import uploads

from es4r_toolkit.data.audio import save
from es4r_toolkit.data.manifest import read_manifest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'es4r-toolkit[demo]'")
pytest.importorskip("espeakng_loader", reason="espeak-ng is not installed: pip install 'es4r-toolkit[espeak]'")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HISTORY = (
    ("speaker", "I lost my job this morning."),
    ("listener", "I am sorry to hear that."),
    ("speaker", "I do not know what to do now."),
)
# What is played is decoded by the browser; loudness and place in time are kept for a look.
LISTEN = """
window.heard = [];
const decode = BaseAudioContext.prototype.decodeAudioData;
BaseAudioContext.prototype.decodeAudioData = async function (bytes) {
  const sound = await decode.call(this, bytes);
  const samples = sound.getChannelData(0);
  sound.rms = Math.sqrt(samples.reduce((sum, one) => sum + one * one, 0) / samples.length);
  return sound;
};
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when) {
  heard.push({ when, seconds: this.buffer.duration, rms: this.buffer.rms });
  return start.call(this, when);
};
"""


class SlowVoice:
    """A voice that takes its time before each piece."""

    def __init__(self, voice, seconds: float):
        self._voice, self._seconds = voice, seconds
        self.sample_rate, self.style_dim, self.honours = voice.sample_rate, voice.style_dim, voice.honours

    def style(self, waveform, sample_rate):
        return self._voice.style(waveform, sample_rate)

    def synthesize(self, text, style=None, prosody=None):
        time.sleep(self._seconds)
        return self._voice.synthesize(text, style, *([] if prosody is None else [prosody]))

    def stream(self, text, style=None, prosody=None):
        yield self.synthesize(text, style, prosody)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory) -> Path:
    """A manifest of a dialogue of three turns in espeak-ng's voices."""
    from es4r_toolkit.backends.espeak import EspeakSynthesizer

    folder, turns = tmp_path_factory.mktemp("spoken"), []
    for place, (role, words) in enumerate(HISTORY):
        with EspeakSynthesizer("en-us+m3" if role == "speaker" else "en-us+f2") as voice:
            save(folder / f"{place}.wav", voice.synthesize(words), voice.sample_rate)
        turns.append({"role": role, "utterance": words, "audio_path": f"{place}.wav"})
    record = {"conversation_id": "job", "dialogue_history": turns}
    (folder / "dialogues.jsonl").write_text(json.dumps(record))
    return folder / "dialogues.jsonl"


@pytest.fixture(scope="module")
def address(spoken) -> Iterator[str]:
    """The page, served with the shipped model, and with the same speaking slowly."""
    from es4r_toolkit.demo.models import offer
    from es4r_toolkit.demo.serving import serving

    (shipped,) = offer([])
    responder = shipped.responder
    slow = responder.with_voice(SlowVoice(responder.pipeline.synthesis.voice, 1.0))
    models = [shipped, dataclasses.replace(shipped, name="slow", responder=slow, is_shipped=False)]
    shipped.warm_up()
    with serving(models, read_manifest(spoken).dialogues) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    # The microphone is Chromium's own, which beeps.
    devices = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox", *devices])
        yield chromium
        chromium.close()


@pytest.fixture
def visitor(browser, address) -> Iterator[object]:
    """Opens pages for visitors of their own; what leaves this machine, or fails on a page, fails the test."""
    contexts, faults = [], []

    def come(known: str = "\n", **options):
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(60_000)
        context.grant_permissions(["microphone"])
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(LISTEN)
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on(
            "console",
            lambda message: message.type == "error" and known not in message.text and faults.append(message.text),
        )
        home = (address, "data:", "blob:")
        page.on("request", lambda request: request.url.startswith(home) or faults.append(request.url))
        page.goto(address)
        page.locator("#send").wait_for()
        return page

    yield come
    for context in contexts:
        context.close()
    assert faults == []


def choose(page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).click()


def say(page, words: str) -> None:
    page.locator("#words textarea, #words input").fill(words)
    page.get_by_role("button", name="Send").click()


def put(page, file: Path) -> None:
    page.get_by_role("button", name="Upload file").click()
    page.locator("#recording input[type=file]").set_input_files(file)
    page.locator("#recording [aria-label='Clear']").wait_for()


def answered(page, turns: int) -> list[str]:
    """The dialogue, once it has so many turns, with why the last is so."""
    page.locator(f".turns > li:nth-child({turns})").wait_for()
    page.locator(".why .card").first.wait_for()
    return page.locator(".turns > li .words").all_inner_texts()


def sound_of(page, turn: int) -> tuple[np.ndarray, int]:
    """What the player of a turn (from 1) holds."""
    source = page.locator(f".turns > li:nth-child({turn}) audio").get_attribute("src")
    return soundfile.read(io.BytesIO(base64.b64decode(source.split(",", 1)[1])))


def loudness(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


def shades(page, selector: str) -> list[float]:
    """Lightness of a text and of what lies behind it, 0 to 255."""
    page.locator(selector).first.wait_for()
    colours = page.locator(selector).first.evaluate("""one => {
      const ink = getComputedStyle(one).color;
      while (getComputedStyle(one).backgroundColor === "rgba(0, 0, 0, 0)") one = one.parentElement;
      return [ink, getComputedStyle(one).backgroundColor];
    }""")
    return [sum(map(float, colour[4:-1].split(",")[:3])) / 3 for colour in colours]


# -- in the browser ---------------------------------------------------------------------------------------------------


def test_an_example_is_answered_in_words_and_sound_with_reasons(visitor):
    page = visitor()
    assert page.locator("h1").inner_text() == "A voice that answers"
    assert page.get_by_text("The voice is synthetic.").is_visible()
    assert page.get_by_text("This is a small demonstration model").is_visible()
    assert page.get_by_label("Model", exact=True).input_value() == "small demo model (preset: plus)"
    page.get_by_role("button", name="I lost my job this morning").click()
    words = answered(page, turns=4)
    assert words[:3] == [text for _, text in HISTORY]
    assert len(words[3]) > 10
    assert [role.split()[0] for role in page.locator(".turns .who").all_inner_texts()] == [
        "Speaker",
        "Listener",
        "Speaker",
        "Listener",
    ]
    pictures = page.locator(".why img")
    assert pictures.evaluate_all("all => all.map(one => one.naturalWidth > 100)") == [True] * 4
    assert [alt.split()[0] for alt in pictures.evaluate_all("all => all.map(one => one.alt)")] == [
        "Energy",
        "Waterfall",
        "Attention",
        "Style",
    ]
    for turn in range(1, 5):
        samples, _ = sound_of(page, turn)
        assert loudness(samples) > 0.01
    assert page.locator(".turns audio").evaluate_all("all => all.map(one => one.ariaLabel)")[3] == "Turn 4, listener"


def test_the_pieces_of_a_reply_are_played_one_behind_the_other_without_a_gap(visitor):
    page = visitor()
    say(page, "I lost my job this morning.")
    words = answered(page, turns=2)
    page.get_by_text("The synthetic voice speaks").wait_for()
    heard = page.evaluate("heard")
    assert len(heard) == words[1].count(".")
    assert min(piece["rms"] for piece in heard) > 0.01
    for before, after in pairwise(heard):
        assert after["when"] == pytest.approx(before["when"] + before["seconds"], abs=1e-6)
    samples, rate = sound_of(page, 2)
    assert sum(piece["seconds"] for piece in heard) == pytest.approx(len(samples) / rate, abs=0.01)


def test_a_typed_turn_is_spoken_and_the_page_says_that_nothing_can_be_heard_in_it(visitor):
    page = visitor()
    page.get_by_role("button", name="Send").click()
    assert "type something first" in page.get_by_role("alert").inner_text()
    assert "nothing of you can be heard in it" in page.locator("#words").inner_text()
    say(page, "I lost my job this <b>morning</b> ${1+1} {{value}}.")
    assert answered(page, turns=2)[0] == "I lost my job this <b>morning</b> ${1+1} {{value}}."
    assert "typed, spoken by the synthetic voice" in page.locator(".turns .who").first.inner_text()
    assert page.locator("#words textarea, #words input").input_value() == ""


def test_a_recording_is_uploaded_written_down_and_deleted(visitor, spoken, tmp_path):
    page = visitor()
    put(page, spoken.parent / "0.wav")
    page.get_by_role("button", name="Send").click()
    words = answered(page, turns=2)
    assert "morning" in words[0]
    assert "written down by pocketsphinx" in page.locator(".turns .who").first.inner_text()
    samples, rate = sound_of(page, 1)
    assert (rate, loudness(samples) > 0.01) == (16000, True)
    assert uploads() == []


def test_a_microphone_is_heard(visitor):
    page = visitor()
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Stop", exact=True).first.click()
    page.locator("#recording [aria-label='Clear']").wait_for()
    say(page, "This is how I sound.")
    answered(page, turns=2)
    assert "typed and recorded" in page.locator(".turns .who").first.inner_text()
    samples, rate = sound_of(page, 1)
    assert len(samples) / rate > 0.5
    assert loudness(samples) > 0.001


def test_rubbish_is_named_in_a_sentence_and_the_dialogue_stays(visitor, tmp_path):
    # The browser itself says that it cannot draw such a file.
    page = visitor(known="Waveform load error")
    say(page, "I lost my job this morning.")
    before = answered(page, turns=2)
    rubbish = tmp_path / "secret name.wav"
    rubbish.write_bytes(os.urandom(4096))
    put(page, rubbish)
    (kept,) = uploads()
    assert re.fullmatch(r"recording-[0-9a-f]{16}\.wav", kept.name)
    page.get_by_role("button", name="Send").click()
    told = page.get_by_role("alert").inner_text()
    assert told.startswith("The recording is not audio that can be read")
    assert "secret" not in told
    assert "/" not in told.replace("OGG, MP3 or AIFF", "")
    assert page.locator(".turns > li .words").all_inner_texts() == before
    assert uploads() == []
    say(page, "But I found another one.")
    assert len(answered(page, turns=4)) == 4
    assert page.get_by_role("alert").count() == 0


def test_two_visitors_do_not_see_each_others_dialogue(visitor):
    first, second = visitor(), visitor()
    say(first, "I lost my job this morning.")
    say(second, "My sister is ill.")
    assert answered(first, turns=2)[0] == "I lost my job this morning."
    assert answered(second, turns=2)[0] == "My sister is ill."
    say(first, "I do not know what to do now.")
    assert [*answered(first, turns=4)[0::2]] == ["I lost my job this morning.", "I do not know what to do now."]
    assert len(answered(second, turns=2)) == 2
    first.get_by_role("button", name="Start over").click()
    first.get_by_text("Nothing was said yet.").wait_for()
    assert first.locator(".why .card").count() == 0
    assert len(answered(second, turns=2)) == 2


def test_an_interruption_ends_writing_speaking_and_playing(visitor):
    page = visitor()
    choose(page, "Model", "slow")
    page.get_by_text("was given on the command line").wait_for()
    say(page, "I lost my job this morning.")
    page.get_by_text("The synthetic voice speaks").wait_for()
    page.get_by_role("button", name="Interrupt").click()
    page.get_by_text("The reply was interrupted.").wait_for()
    assert not page.get_by_text("The synthetic voice speaks").is_visible()
    assert "interrupted" in page.locator(".turns .who").nth(1).inner_text()
    pieces = page.locator(".turns .words").nth(1).inner_text().count(".")
    assert 1 <= pieces < 3
    assert len(page.evaluate("heard")) <= pieces


def test_voice_and_strategy_can_be_chosen(visitor):
    page = visitor()
    say(page, "I lost my job this morning.")
    answered(page, turns=2)
    choose(page, "Voice", "espeak-ng, British, lower")
    choose(page, "Strategy", "encourage")
    page.get_by_role("button", name="Start over").click()
    say(page, "I lost my job this morning.")
    answered(page, turns=2)
    assert "encourage" in page.locator(".turns .who").nth(1).inner_text()
    assert "chosen by hand" in page.locator(".why figcaption").first.inner_text()


def test_a_phone_shows_all_of_it_without_scrolling_sideways_light_and_dark(visitor):
    page = visitor(viewport={"width": 390, "height": 844}, color_scheme="dark")
    ink, ground = shades(page, ".heading h1")
    assert ground < 60 < 200 < ink
    page.emulate_media(color_scheme="light")
    page.reload()
    say(page, "I lost my job this morning.")
    answered(page, turns=2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ink, ground = shades(page, ".turn.speaker .words")
    assert ink < 60 < 200 < ground
