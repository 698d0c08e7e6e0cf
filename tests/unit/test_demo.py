"""The demo behind its page: what is offered, what is let in, and a visitor's dialogue."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from es4r_toolkit.demo import drawing
from es4r_toolkit.demo.guarding import UPLOAD, UPLOADS, Border, without_name
from es4r_toolkit.demo.models import PRESETS, OfferedModel, offer, preset_named
from es4r_toolkit.demo.recording import LIMITS, readable, take, typed
from es4r_toolkit.demo.replying import replying
from es4r_toolkit.demo.visit import Said, Visit, typed_turn
from es4r_toolkit.dialogue import LISTENER, SPEAKER
from es4r_toolkit.errors import AudioError, BackendError, ConfigError, DialogueError
from es4r_toolkit.hparams import compose, plain

ROOT = Path(__file__).parents[2]
RATE = 16000


def tone(seconds: float = 0.6, hertz: float = 150.0) -> torch.Tensor:
    return 0.2 * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


def said(words: str = "I lost my job.", role: str = SPEAKER, hertz: float = 150.0) -> Said:
    return Said(role, words, tone(hertz=hertz), RATE, "recorded")


class ToneVoice:
    """A voice that hums, as long as a text is, and waits before a text that it was told to wait at."""

    sample_rate, style_dim, honours = 24000, None, frozenset()

    def __init__(self, slow: float = 0.0):
        self.slow, self.asked = slow, []

    def style(self, waveform, sample_rate):
        raise BackendError("hum", "has no styles", "")

    def synthesize(self, text, style=None, prosody=None):
        self.asked.append(text)
        if len(self.asked) > 1:
            time.sleep(self.slow)
        return 0.1 * torch.sin(torch.arange(240 * len(text)) * 0.05)

    def stream(self, text, style=None, prosody=None):
        yield self.synthesize(text)


@pytest.fixture(scope="module")
def model() -> OfferedModel:
    """The shipped model, humming."""
    (shipped,) = offer([])
    return dataclasses.replace(shipped, responder=shipped.responder.with_voice(ToneVoice()))


def written(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


# -- what is offered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_of_the_recipes_are_known_by_their_names(preset):
    switches = plain(compose(ROOT / "recipes" / "_shared" / "preset" / f"{preset}.yaml"))
    assert PRESETS[preset].items() <= switches.items()
    assert preset_named(switches) == preset


def test_a_changed_preset_is_named_with_its_change():
    assert preset_named({**PRESETS["paper"], "full_window": False}) == "paper, but full_window: False"


def test_models_are_called_by_their_run_and_never_by_a_path(tmp_path):
    from es4r_toolkit.inference import SHIPPED_MODEL

    for run in ("first", "second"):
        (tmp_path / run / "mine").mkdir(parents=True)
        (tmp_path / run / "mine" / "model").symlink_to(SHIPPED_MODEL)
    models = offer([str(tmp_path / run / "mine" / "model") for run in ("first", "second")])
    assert [model.label for model in models] == [
        "affectprobe-small (preset: plus)",
        "affectprobe-small (2) (preset: plus)",
        "small demo model (preset: plus)",
    ]
    assert [model.is_shipped for model in models] == [False, False, True]
    assert "small demonstration model" in drawing.about(models[-1])
    assert "small demonstration model" not in drawing.about(models[0])


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(BackendError, match="no such model folder"):
        offer(["./nowhere"])


# -- the border -------------------------------------------------------------------------------------------------------


def upload(folder: Path, seconds: float = 0.5, rate: int = 44100, channels: int = 1) -> Path:
    file = folder / "digest" / "secret name.wav"
    file.parent.mkdir()
    soundfile.write(str(file), np.full((int(seconds * rate), channels), 0.1), rate)
    return file


def test_an_upload_is_read_at_the_models_rate_and_is_gone(tmp_path):
    file = upload(tmp_path, seconds=0.5, channels=2)
    assert take(str(file), RATE).shape == (8000,)
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("seconds", "channels", "problem"),
    [
        (61.0, 1, "lasts 61.0 s, over the limit of 60 s"),
        (0.1, 1, "lasts 0.10 s, under 0.2 s"),
        (0.5, 3, "has 3 channels, over the limit of 2"),
    ],
)
def test_what_is_outside_the_limits_is_refused_and_is_gone(tmp_path, seconds, channels, problem):
    file = upload(tmp_path, seconds, 8000, channels)
    with pytest.raises(AudioError, match=problem) as raised:
        take(str(file), RATE)
    assert not file.exists()
    assert readable(raised.value).startswith(f"The recording {problem}")


def test_a_large_file_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    file = tmp_path / "large.wav"
    with file.open("wb") as sparse:
        sparse.truncate(LIMITS.max_bytes + 1)
    monkeypatch.setattr(soundfile, "SoundFile", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(AudioError, match="over the limit of 20971520"):
        take(str(file), RATE)
    assert not file.exists()


def test_rubbish_gives_a_sentence_without_a_path(tmp_path):
    file = tmp_path / "secret name.wav"
    file.write_bytes(b"rubbish" * 100)
    with pytest.raises(AudioError) as raised:
        take(str(file), RATE)
    told = readable(raised.value)
    assert told.startswith("The recording is not audio that can be read")
    assert "secret" not in told
    assert str(tmp_path) not in told


def test_no_path_of_the_server_is_told():
    fault = BackendError(
        "/srv/models/mine", "cannot read /srv/models/mine/llm/x.safetensors", "copy it to '/srv/models/'"
    )
    assert "srv" not in readable(fault)


def test_typed_words_are_bounded():
    assert typed("  I lost\n my job ") == "I lost my job"
    assert typed(None) == ""
    with pytest.raises(DialogueError, match="501 characters, over the limit of 500"):
        typed("a" * 501)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        (b'filename="../../etc/my \\"voice\\".WAV"', b".wav"),
        (b"filename*=UTF-8''stra%C3%9Fe.ogg", b".ogg"),
        (b'filename="noending"\r\nContent-Type: audio/x.wav', b""),
    ],
)
def test_the_name_of_an_upload_is_taken_off_and_its_bytes_are_not_touched(name, ending):
    content = bytes(range(256)) + b'filename="kept.wav"'
    head = b'\r\nContent-Disposition: form-data; name="files"; ' + name
    body = b"--a-b" + head + b"\r\n\r\n" + content + b"\r\n--a-b--\r\n"
    taken, kind = without_name(body, b'multipart/form-data; boundary="a-b"')
    new = b"--" + kind.removeprefix(b"multipart/form-data; boundary=")
    first, head, blank, rest = taken.split(b"\r\n", 3)
    assert (first, blank, rest) == (new, b"", content + b"\r\n" + new + b"--\r\n")
    found = re.fullmatch(rb'Content-Disposition: form-data; name="files"; filename="recording-[0-9a-f]{16}(.*)"', head)
    assert found[1] == ending


def statuses(border: Border, count: int, path: str = UPLOAD) -> list[int]:
    """What so many get who send half a request at once, and then wait."""
    scope = {"type": "http", "method": "POST", "scheme": "http", "path": path, "headers": [(b"host", b"127.0.0.1")]}

    async def ask() -> int:
        sent, answered = iter([{"type": "http.request", "body": b"--x", "more_body": True}]), []

        async def receive() -> dict:
            return next(sent, None) or await asyncio.Event().wait()

        async def send(message: dict) -> None:
            answered.append(message)

        await border(dict(scope), receive, send)
        return answered[0]["status"]

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(ask() for _ in range(count)))

    return asyncio.run(all_of_them())


async def unreached(*_: object) -> None:
    pytest.fail("it went through")


def test_what_does_not_arrive_in_time_is_not_waited_for():
    for path in (UPLOAD, "/gradio_api/queue/join"):
        assert statuses(Border(unreached, max_bytes=100, seconds=0.05), 1, path) == [408]


def test_so_many_recordings_may_arrive_at_once_and_no_more():
    border = Border(unreached, max_bytes=100, seconds=0.2)
    assert sorted(statuses(border, UPLOADS + 2)) == [408] * UPLOADS + [503] * 2
    assert sorted(statuses(border, 1)) == [408]


# -- a visit ----------------------------------------------------------------------------------------------------------


def test_a_reply_comes_piece_by_piece_and_ends_in_the_dialogue(model):
    visit, responder = Visit(), model.responder
    shown = list(replying(visit, responder, said()))
    assert [turn.role for turn in visit.turns] == [SPEAKER, LISTENER]
    pieces = [len(update["player"]["chunks"]) for update in shown if "player" in update]
    assert pieces == sorted(pieces)
    assert pieces[0] == 0
    assert pieces[-1] > 1
    assert len({update["player"]["reply"] for update in shown if "player" in update}) == 1
    whole = visit.turns[-1].text
    texts = [written(update["now"]) for update in shown if "now" in update]
    assert texts[-1] == ""
    assert whole in texts[-2]
    assert "I lost my job." in shown[0]["chat"]
    assert whole in written(shown[-2]["chat"])
    assert shown[-1].keys() == {"why"}
    for picture in ("Energy by turn", "Attention of", "Style weight by turn", "Waterfall of seconds: decoding"):
        assert f'alt="{picture}' in shown[-1]["why"]


def test_a_forced_strategy_is_taken_and_said_to_be(model):
    shown = list(replying(Visit(), model.responder, said(), "comfort"))
    assert "chosen by hand" in shown[-1]["why"]
    assert "comfort 100 %" in written(shown[-1]["why"])


def test_a_strategy_that_is_not_there_leaves_the_dialogue_as_it_was(model):
    visit = Visit()
    *_, last = replying(visit, model.responder, said(), "shout")
    assert visit.turns == []
    assert "must be one of comfort, neutral, encourage" in last["status"]
    assert 'role="alert"' in last["status"]


def test_the_dialogue_goes_on_with_another_voice(model):
    visit = Visit()
    list(replying(visit, model.responder, said()))
    other = model.responder.with_voice(ToneVoice())
    *_, last = replying(visit, other, said("I found another one.", hertz=180.0))
    assert [turn.role for turn in visit.turns] == [SPEAKER, LISTENER, SPEAKER, LISTENER]
    assert "turn 3 speaker" in last["why"]


def test_what_was_left_out_is_told_and_what_for(model):
    pending = Visit().say(model.responder, said())
    list(pending.stream)
    response = pending.stream.response
    pipeline = model.responder.pipeline
    assert "Turns 1 Words from" in written(drawing.why(response, pipeline))
    assert "cut off" not in written(drawing.why(response, pipeline))
    gone = dataclasses.replace(response, dropped_turns=1, forgotten_turns=3, cut_off=True)
    told = "Turns 1, the oldest 1 beyond the window; 3 before these forgotten for good Words from"
    assert told in written(drawing.why(gone, pipeline))
    assert f"{response.text} (cut off: as long as the model may write)" in written(drawing.why(gone, pipeline))


def test_words_of_visitors_are_text_and_nothing_else(model):
    visit = Visit()
    words = "<img src=x onerror=alert(1)> {{value}} ${1+1}"
    shown = list(replying(visit, model.responder, said(words)))
    assert "<img src=x" not in "".join(str(update) for update in shown)
    assert "&lt;img src=x" in shown[-2]["chat"]


def test_who_interrupts_keeps_what_was_said_by_then(model):
    visit = Visit()
    updates = replying(visit, model.responder.with_voice(ToneVoice(slow=0.4)), said())
    for update in updates:
        if update.get("player", {}).get("chunks"):
            break
    began = time.monotonic()
    visit.interrupt()
    assert time.monotonic() - began < 2
    rest = list(updates)
    assert "The reply was interrupted." in rest[-1]["status"]
    reply = visit.turns[-1]
    assert (reply.role, reply.note) == (LISTENER, "synthetic voice, interrupted")
    assert reply.text.count(".") < 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reply ")]


def test_who_speaks_again_interrupts_and_is_answered(model):
    visit, slow = Visit(), model.responder.with_voice(ToneVoice(slow=0.4))
    first = replying(visit, slow, said())
    for update in first:
        if update.get("player", {}).get("chunks"):
            break
    list(replying(visit, slow, said("Wait, I found another one.", hertz=190.0)))
    list(first)
    assert [turn.role for turn in visit.turns] == [SPEAKER, LISTENER, SPEAKER, LISTENER]
    assert visit.turns[1].note == "synthetic voice, interrupted"
    assert "interrupted" not in visit.turns[-1].note


def test_who_starts_over_hears_nothing_more_of_before(model):
    visit = Visit()
    updates = replying(visit, model.responder.with_voice(ToneVoice(slow=0.4)), said())
    for update in updates:
        if update.get("player", {}).get("chunks"):
            break
    visit.start_over()
    assert list(updates) == []
    assert visit.turns == []


def test_a_typed_turn_is_spoken_by_the_voice_and_says_so(model):
    turn = typed_turn(model.responder, "I lost my job.")
    assert (turn.text, turn.sample_rate, turn.note) == ("I lost my job.", 24000, "typed, spoken by the synthetic voice")
    assert len(turn.waveform) == 240 * len(turn.text)


def test_old_turns_of_a_long_dialogue_lose_their_players():
    turns = [said(f"Number {place}.") for place in range(drawing.MOST_PLAYERS + 3)]
    page = drawing.chat(turns)
    assert page.count("<audio") == drawing.MOST_PLAYERS
    assert page.count("Number ") == len(turns)
    assert "Number 0." in page
    assert page.index("<audio") > page.index("Number 3.")


def test_a_voice_that_is_unknown_is_refused():
    pytest.importorskip("gradio")
    from es4r_toolkit.demo.page import _voice

    with pytest.raises(ConfigError, match="none of those offered"):
        _voice("../../etc/passwd")
