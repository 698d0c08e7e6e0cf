"""The report page: whole, harmless, true to the numbers it was given."""

from __future__ import annotations

import base64
import io
import re
import wave
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from es4r_toolkit.errors import AudioError, ConfigError, DialogueError
from es4r_toolkit.report import AnsweredDialogue, AnsweredTurn, DemoReport, write_report
from es4r_toolkit.report.content import as_array
from es4r_toolkit.report.dialogue_plots import attention_map, attention_scale, energy_words
from es4r_toolkit.report.page import MAX_DIALOGUES, render
from es4r_toolkit.report.sound import MAX_CLIP_SECONDS, clip
from es4r_toolkit.report.words import by_column, columns

VOID = {"meta", "img", "br", "link", "hr", "input", "source"}
HOSTILE = '<script>alert("1")</script>\'"><img src=x onerror=alert(2)> $\\frac{1}{ $x^ &amp; \x00\ud800'


class Page(HTMLParser):
    """Collects elements and visible text, and fails on tags that do not pair up."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


def tone(samples: int, loudness: float = 0.3) -> torch.Tensor:
    return loudness * torch.sin(torch.arange(samples) * 0.1)


def dialogue(**changes) -> AnsweredDialogue:
    turns = [
        AnsweredTurn("speaker", "I saw the flat.", tone(1600), 16000, 12.0, "sad", 0.2),
        AnsweredTurn("listener", "How was it?", tone(800).numpy(), 16000, 9.0, None, 0.3),
        AnsweredTurn("speaker", "As they said.", tone(1200), 16000, 6.0, "sad", 0.5),
    ]
    settings = {
        "id": "test-0001",
        "turns": turns,
        "reply_text": "That sounds sad.",
        "reply_waveform": tone(2205),
        "reply_sample_rate": 22050,
        "reference": "It sounds sad, and worse.",
        "slots": {"affect": "sad", "trend": "worse", "topic": "flat"},
        "predicted_slots": {"affect": "sad", "trend": None, "topic": "garden"},
        "strategy": "comfort",
        "strategy_weights": {"comfort": 0.75, "neutral": 0.25},
        "energy_change": -1 / 3,
        "prosody": {"rate": 0.85, "expressiveness": 1.2, "pitch_shift": -0.5, "energy": -2.0},
        "timings": {"understanding": 0.1, "generation": 0.25},
        "attention": torch.softmax(torch.arange(24.0).view(4, 6), dim=1),
        "tokens": ["▁I", "▁saw", "▁the", "▁fl", "at", "▁How"],
        "turn_of_token": [0, 0, 0, 0, 0, 1],
        "turn_of_position": [0, 0, 1, 2],
    }
    return AnsweredDialogue(**{**settings, **changes})


SUMMARY = {
    "text_only": {"topic": 0.99, "affect": 0.26, "trend": 0.34, "bleu4": 0.412, "count": 200},
    "plus": {"topic": 0.98, "affect": 0.861, "trend": 0.7, "bleu4": 0.613, "count": 200},
    "chance": {"topic": 0.125, "affect": 0.25, "trend": 0.333, "trend_from_last_affect": 0.52},
    "seconds": 512.3,
}
HISTORIES = {
    "plus": [
        {"epoch": 1, "train_loss": 2.0, "valid_loss": 2.1, "affect": 0.3, "trend": None, "seconds": 9.0},
        {"epoch": 2, "train_loss": 1.0, "valid_loss": float("nan"), "affect": 0.6, "bleu4": 0.2},
    ]
}
CONFUSION = {"affect": (["angry", "sad"], [[3, 1], [0, 4]]), "trend": (["better", "worse"], [[3, 1, 1], [0, 4, 0]])}


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> tuple[Page, str]:
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    report = DemoReport("A demonstration", SUMMARY, HISTORIES, [dialogue()], CONFUSION, ["A remark."])
    assert write_report(path, report) == path
    text = path.read_text(encoding="utf-8")
    return Page(text), text


def samples_of(source: str) -> tuple[int, np.ndarray]:
    head, body = source.split(",", 1)
    assert head == "data:audio/wav;base64"
    with wave.open(io.BytesIO(base64.b64decode(body, validate=True))) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_the_page_points_at_nothing_outside_itself(full):
    page, text = full
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"url\(|@import|https?://", text)
    places = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} <= places


def test_every_picture_is_sound_svg_with_words_for_those_who_cannot_see_it(full):
    page, _ = full
    # One bar chart, loss, affect and BLEU curves, two confusions, energy and attention.
    assert len(page.all("img")) == 8
    for picture in page.all("img"):
        head, body = picture["src"].split(",", 1)
        drawing = base64.b64decode(body, validate=True).decode("utf-8")
        assert head == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(drawing).tag.endswith("svg")
        assert "matplotlib.org" not in drawing
        assert len(picture["alt"]) > 20


def test_players_decode_to_the_samples_they_were_given(full):
    page, _ = full
    players = page.all("audio")
    given = [(16000, tone(1600)), (16000, tone(800)), (16000, tone(1200)), (22050, tone(2205))]
    assert len(players) == len(given)
    for player, (rate, waveform) in zip(players, given):
        found_rate, found = samples_of(player["src"])
        assert found_rate == rate
        assert len(found) == len(waveform)
        assert np.abs(found / 32767 - waveform.numpy()).max() < 1e-4
        assert "controls" in player
        assert "autoplay" not in player


def test_the_page_says_what_voice_and_model_it_shows(full):
    text = full[0].text
    assert "the voice is synthetic (espeak-ng" in text
    assert "small demonstration model" in text


def test_figures_stand_in_the_table_as_given(full):
    text = full[0].text
    assert "plus preset 98.0% 86.1% 70.0% 0.613 200" in text
    assert "text only 99.0% 26.0% 34.0% 0.412 200" in text
    assert "oracle: trend from last affect – – 52.0%" in text
    assert "chance 12.5% 25.0% 33.3%" in text
    assert "8 min 32 s" in text


def test_verdicts_are_words_and_not_colour_alone(full):
    text = full[0].text
    assert "affect sad sad ✓ right" in text
    assert "trend worse – ✗ not said" in text
    assert "topic flat garden ✗ wrong" in text


def test_decision_prosody_style_and_timing_are_told(full):
    text = full[0].text
    assert "energy falls 33% per turn: comfort" in text
    assert "speed × 0.85" in text
    assert "pitch −0.5 semitones" in text
    assert "turn 3 50%" in text
    assert "together 0.35 s" in text


def test_a_training_value_no_curve_can_show_is_named(full):
    assert "Training of plus: valid_loss of epoch 2 is nan; values that no curve can show: 1." in full[0].text


def test_the_attention_picture_tells_the_share_on_the_own_turn(full):
    weights = torch.softmax(torch.arange(24.0).view(4, 6), dim=1)
    share = (weights[:2, :5].sum() + weights[2, 5]) / 4
    assert any(f"{100 * share:.0f}% of it falls on the text of the same turn" in p["alt"] for p in full[0].all("img"))


def test_the_same_report_gives_the_same_bytes(full):
    assert render(DemoReport("A demonstration", SUMMARY, HISTORIES, [dialogue()], CONFUSION, ["A remark."])) == full[1]


def test_hostile_text_stays_text(tmp_path):
    turn = AnsweredTurn("speaker", HOSTILE, tone(100), 16000, 1.0, HOSTILE, 1.0)
    hostile = dialogue(
        id=HOSTILE,
        turns=[turn],
        reply_text=HOSTILE,
        reference=HOSTILE,
        slots={HOSTILE: HOSTILE},
        predicted_slots={HOSTILE: HOSTILE},
        strategy=HOSTILE,
        strategy_weights={HOSTILE: 1.0},
        prosody={HOSTILE: 1.0},
        timings={HOSTILE: 1.0},
        tokens=[HOSTILE] * 6,
        turn_of_token=[0] * 6,
        turn_of_position=[0] * 4,
    )
    report = DemoReport(
        HOSTILE,
        {HOSTILE: {HOSTILE: 0.5}, "chance": {HOSTILE: 0.5}, "remark": HOSTILE},
        {HOSTILE: [{"epoch": 1, "train_loss": 1.0, HOSTILE: 0.5}]},
        [hostile],
        {HOSTILE: ([HOSTILE], [[1]])},
        [HOSTILE],
    )
    page = Page(write_report(tmp_path / "report.html", report).read_text(encoding="utf-8"))
    assert page.all("script") == []
    assert len(page.all("img")) == 6
    assert all(picture["src"].startswith("data:image/svg+xml;base64,") for picture in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert page.text.count('<script>alert("1")</script>') >= 12
    for picture in page.all("img"):
        ElementTree.fromstring(base64.b64decode(picture["src"].split(",", 1)[1]))


def test_dollar_signs_in_tokens_and_labels_are_no_formulas():
    formula = "$\\frac{$"
    page = Page(
        render(
            DemoReport(
                "Dollars",
                {formula: {formula: 0.5}, "chance": {formula: 0.5}},
                {formula: [{"train_loss": 1.0}]},
                [dialogue(tokens=[formula] * 6)],
                {formula: ([formula], [[1]])},
            )
        )
    )
    assert len(page.all("img")) == 5


def test_a_report_of_next_to_nothing_is_still_a_page():
    bare = dialogue(
        turns=[AnsweredTurn("speaker", "Well.", None, 16000, 0.0)],
        reply_text="",
        reply_waveform=np.zeros(0),
        reference=None,
        slots={},
        predicted_slots={},
        strategy_weights={},
        energy_change=0.0,
        prosody={},
        timings={},
        attention=None,
    )
    page = Page(render(DemoReport("Empty", {}, {}, [bare])))
    assert page.all("audio") == []
    assert page.text.count("No sound.") == 2
    assert "this voice takes no style" in page.text
    assert len(page.all("img")) == 1
    assert Page(render(DemoReport("Empty", {"plus": {"bleu4": None}}))).all("img") == []


def test_sizes_stay_bounded_and_the_page_says_what_it_leaves_out():
    long = clip(tone(16000 * 100), 16000)
    assert len(samples_of(long.source)[1]) == 16000 * MAX_CLIP_SECONDS
    assert long.remark == "first 60 s of 100 s"
    short = dialogue(attention=None)
    page = render(DemoReport("Many", {}, {}, [short] * (MAX_DIALOGUES + 3)))
    assert f"The first {MAX_DIALOGUES} of {MAX_DIALOGUES + 3} dialogues are shown." in page
    assert page.count("<article") == MAX_DIALOGUES
    sound = MAX_DIALOGUES * sum(len(samples) for samples in (tone(1600), tone(800), tone(1200), tone(2205))) * 2 * 4 / 3
    assert len(page) < sound + MAX_DIALOGUES * 80_000


def test_a_wave_beyond_full_scale_is_turned_down_not_clipped():
    loud = clip(tone(1000, 4.0), 16000)
    found = samples_of(loud.source)[1] / 32767
    assert np.allclose(found, as_array(tone(1000, 1.0)) / as_array(tone(1000, 1.0)).max(), atol=2e-3)
    assert loud.remark == "turned down to 0.25, as it went beyond full scale"


@pytest.mark.parametrize(
    ("change", "turns", "words"),
    [
        (-0.064, "all", "energy falls 6% per turn: comfort"),
        (0.004, "speaker", "energy rises 0.4% per speaker turn: comfort"),
        (0.0, "all", "energy stays the same: comfort"),
    ],
)
def test_the_decision_in_words(change, turns, words):
    assert energy_words(dialogue(energy_change=change, strategy_turns=turns)) == words


def test_few_tokens_stay_tokens_and_many_become_words_then_phrases():
    tokens = [piece for _ in range(40) for piece in ("▁walk", "ed", ".")]
    turns = [0] * 60 + [1] * 60
    assert len(columns(tokens, turns, most=120)) == 120
    words = columns(tokens, turns, most=60)
    assert [word.label for word in words] == ["walked."] * 40
    phrases = columns(tokens, turns, most=7)
    assert len(phrases) <= 7
    for shown in (words, phrases):
        assert [shown[0].start, *(column.end for column in shown)] == [*(column.start for column in shown), 120]
        assert all(set(turns[column.start : column.end]) == {column.turn} for column in shown)
        weights = np.random.default_rng(0).dirichlet(np.ones(120), size=5)
        assert np.allclose(by_column(weights, shown).sum(axis=1), 1)


def test_tokens_without_word_marks_are_never_run_together():
    assert columns(list("abcd"), [0] * 4, most=2)[0].label == "a b"


def test_a_history_of_thousands_of_tokens_is_shown_in_time():
    assert len(columns([f"▁word{n}" for n in range(4000)], [n // 500 for n in range(4000)])) == 60


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"turns": []}, DialogueError, "test-0001: has no turns"),
        ({"energy_change": float("nan")}, DialogueError, "energy_change is nan"),
        ({"strategy_turns": "listener"}, DialogueError, "strategy_turns is 'listener'"),
        ({"reply_waveform": torch.zeros(1, 5)}, AudioError, r"test-0001, reply: waveform has shape \(1, 5\)"),
        ({"reply_waveform": torch.tensor([0.0, torch.inf])}, AudioError, "1 samples are not finite"),
        ({"reply_sample_rate": 0}, AudioError, "sample rate is 0"),
        ({"tokens": ["▁I"]}, DialogueError, "4 speech positions, 1 tokens"),
        ({"turn_of_position": [0, 1, 2, 3]}, DialogueError, "turn_of_position holds 3"),
        ({"attention": -torch.ones(4, 6)}, DialogueError, "weights below 0"),
    ],
)
def test_a_dialogue_that_cannot_be_shown_is_named(changes, error, message):
    with pytest.raises(error, match=message):
        render(DemoReport("Bad", {}, {}, [dialogue(**changes)]))


def test_a_turn_that_cannot_be_shown_is_named():
    good = dialogue()
    for change, message in (
        ({"role": "friend"}, "turn 2: role is 'friend'"),
        ({"energy": -1.0}, "turn 2: energy is -1"),
    ):
        turns = [good.turns[0], replace(good.turns[1], **change), good.turns[2]]
        with pytest.raises(DialogueError, match=message):
            render(DemoReport("Bad", {}, {}, [dialogue(turns=turns)]))


def test_figures_out_of_bounds_are_named():
    with pytest.raises(ConfigError, match=r"summary\[plus\]\[topic\]: got 98.0"):
        render(DemoReport("Bad", {"plus": {"topic": 98.0}, "chance": {"topic": 0.1}}))
    with pytest.raises(ConfigError, match=r"confusion\[topic\]: 2 labels, but counts of shape \(2, 4\)"):
        render(DemoReport("Bad", {}, confusion={"topic": (["a", "b"], np.ones((2, 4)))}))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(tmp_path / "taken" / "report.html", DemoReport("Nowhere", {}))


def test_twins_share_the_scale_of_their_attention():
    faint = dialogue(attention=torch.full((4, 6), 1 / 6), slots={"affect": "joy"})
    page = Page(render(DemoReport("Twins", {}, twins=[faint, dialogue()])))
    assert "joy" in page.text
    assert "sad" in page.text
    tops = [attention_scale(faint), attention_scale(dialogue())]
    assert tops[0] < tops[1]
    sources = [image["src"] for image in page.all("img")]
    assert attention_map(faint, tops[1]).source in sources
    assert attention_map(faint).source not in sources


def test_twins_of_other_words_are_refused():
    other = dialogue(turns=[*dialogue().turns[:2], AnsweredTurn("speaker", "No.", None, 16000, 1.0)])
    with pytest.raises(DialogueError, match="other words"):
        render(DemoReport("Twins", {}, twins=[dialogue(), other]))
