"""The HTTP API: what goes in, and the three forms of what comes out."""

from __future__ import annotations

import base64
import json
from urllib.parse import unquote

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="the serve extra is not installed: pip install 'es4r-toolkit[serve]'")
pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed: pip install 'es4r-toolkit[espeak]'")

import httpx2
from served import (
    EVENTS,
    PATIENCE,
    Served,
    dialogue,
    events_of,
    file_of,
    parts,
    reply_threads,
    samples_of,
    serving,
    voiced,
    wait_until,
)

from es4r_toolkit.data.audio import load
from es4r_toolkit.dialogue import Turn
from es4r_toolkit.inference import NOTICE


@pytest.fixture(scope="module")
def server(responder, tmp_path_factory) -> Served:
    with serving(responder, tmp_path_factory.mktemp("uploads")) as served:
        yield served


# -- the three forms ---------------------------------------------------------------------------------------------------


def test_the_three_forms_hold_one_reply(server):
    asked = dialogue(1.0, 0.8, 1.2)
    whole, sound, stream = (server.post(asked, accept=form) for form in ("application/json", "audio/wav", EVENTS))
    assert [answer.status_code for answer in (whole, sound, stream)] == [200, 200, 200]
    assert stream.headers["content-type"].startswith(EVENTS)
    reply, events = whole.json(), events_of(stream.text)
    assert (
        unquote(sound.headers["ES4R-Text"])
        == reply["text"]
        == "".join(data["text"] for name, data in events if name == "text")
    )
    assert json.loads(sound.headers["ES4R-Cut-Off"]) is reply["cut_off"] is dict(events)["end"]["cut_off"] is False
    assert sound.headers["ES4R-Strategy"] == reply["strategy"] == dict(events)["strategy"]["strategy"]
    wav = base64.b64decode(reply["audio"])
    assert wav == sound.content
    pieces = np.concatenate([samples_of(data["audio"]) for name, data in events if name == "audio"])
    assert np.array_equal(pieces, samples_of(wav))


def test_a_reply_is_the_one_that_the_model_gives_by_itself(server, responder, tmp_path):
    asked = dialogue(1.0, 0.8, 1.2)
    turns = []
    for place, turn in enumerate(asked["turns"]):
        path = tmp_path / f"{place}.wav"
        path.write_bytes(base64.b64decode(turn["audio"]))
        turns.append(responder.hear(Turn(turn["role"], turn["text"]), load(path, responder.sample_rate)))
    with responder.stream(turns) as events:
        alone = [event for event in events][-1].response
    reply = server.post(asked).json()
    assert reply["text"] == alone.text
    assert reply["energies"] == pytest.approx(alone.plan.energies, rel=1e-6)
    expected = (alone.waveform * 32768).round().clamp(-32768, 32767).short()
    assert int((torch.from_numpy(samples_of(reply["audio"])) - expected).abs().max()) <= 1


def test_a_reply_says_how_it_came_about(server):
    reply = server.post(dialogue(1.0, 0.8, 1.2)).json()
    assert [line["source"] for line in reply["transcripts"]] == ["transcript"] * 3
    assert len(reply["energies"]) == len(reply["style_weights"]) == 3
    assert sum(reply["strategy_weights"].values()) == pytest.approx(1.0)
    assert list(reply["timings"])[:2] == ["waiting", "decoding"]
    assert reply["timings"]["first_audio"] > 0
    assert reply["dropped_turns"] == 0


def test_every_form_says_that_the_voice_is_synthetic(server):
    asked = dialogue(0.8)
    whole, sound, stream = (server.post(asked, accept=form) for form in ("*/*", "audio/*", EVENTS))
    assert whole.json()["notice"] == NOTICE
    assert all(answer.headers["ES4R-Notice"] == NOTICE for answer in (whole, sound, stream))
    assert NOTICE.encode() in sound.content[:200]
    events = dict(events_of(stream.text))
    assert events["strategy"]["notice"] == events["end"]["notice"] == NOTICE
    assert NOTICE.encode() in base64.b64decode(events["audio"]["audio"])[:200]


def test_events_come_in_the_order_in_which_a_reply_comes_about(server):
    names = [name for name, _ in events_of(server.post(dialogue(0.8, 0.8, 0.8), accept=EVENTS).text)]
    assert names[:4] == ["transcript"] * 3 + ["strategy"]
    assert names[-2:] == ["timings", "end"]
    assert set(names[4:-2]) == {"text", "audio"}
    # The first sound is out before the last word.
    assert names.index("audio") < len(names) - 1 - names[::-1].index("text")


def test_seconds_to_the_first_sound_are_those_of_the_segments(server):
    timings = dict(events_of(server.post(dialogue(0.8), accept=EVENTS).text))["timings"]
    to_first = timings.pop("to_first_audio")
    assert to_first == pytest.approx(sum(timings.values()) - timings["rest"], abs=1e-3)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("audio/wav", "audio/wav"),
        ("text/html, audio/*;q=0.5", "audio/wav"),
        ("application/json;q=0.2, audio/wav;q=0.8", "audio/wav"),
    ],
)
def test_the_form_follows_accept(server, accept, kind):
    assert server.post(dialogue(0.5), accept=accept).headers["content-type"] == kind


# -- what goes in ------------------------------------------------------------------------------------------------------

LOSSLESS = {"FLAC": {"format": "FLAC"}, "24-bit WAV": {"subtype": "PCM_24"}, "stereo": {}}
LOSSY = {"OGG": {"format": "OGG", "subtype": "VORBIS"}, "MP3": {"format": "MP3"}}


@pytest.mark.parametrize("options", LOSSLESS.values(), ids=LOSSLESS.keys())
def test_a_recording_without_loss_gets_the_same_reply_in_any_format(server, options, request):
    turns = [{"role": "speaker", "text": "I moved house."}]
    samples = np.round(voiced(1.0) * 32768) / 32768
    other = np.stack([samples, samples], axis=1) if "stereo" in request.node.name else samples
    first = server.post(**parts(turns, ("a.wav", file_of(samples, subtype="PCM_16"))))
    second = server.post(**parts(turns, ("b", file_of(other, **options))))
    assert first.status_code == second.status_code == 200
    assert second.json()["audio"] == first.json()["audio"]


@pytest.mark.parametrize("options", LOSSY.values(), ids=LOSSY.keys())
def test_a_compressed_recording_is_heard(server, options):
    turns = [{"role": "speaker", "text": "I moved house."}]
    answer = server.post(**parts(turns, ("turn", file_of(voiced(1.0), **options))))
    assert answer.status_code == 200, answer.text


def test_json_and_multipart_are_two_ways_to_ask_the_same(server):
    asked = dialogue(1.0, 0.8, 1.2)
    files = [(f"{place}.wav", base64.b64decode(turn.pop("audio"))) for place, turn in enumerate(asked["turns"])]
    both = server.post(dialogue(1.0, 0.8, 1.2)).json(), server.post(**parts(asked["turns"], *files)).json()
    for reply in both:
        del reply["timings"]
    assert both[0] == both[1]


def test_the_part_with_the_turns_may_be_a_file_too(server):
    files = {"dialogue": ("d.json", b'{"turns": [{"role": "speaker", "text": "Oh."}]}', "application/json")}
    answer = server.post(files={**files, "audio": ("a", file_of(voiced(0.6)))})
    assert answer.status_code == 200, answer.text


def test_a_turn_without_words_is_written_down(server):
    pytest.importorskip("pocketsphinx", reason="the asr extra is not installed: pip install 'es4r-toolkit[asr]'")
    answer = server.post(**parts([{"role": "speaker"}], ("a.wav", file_of(voiced(0.6)))))
    assert answer.status_code == 200, answer.text
    assert [line["source"] for line in answer.json()["transcripts"]] == ["pocketsphinx"]


def test_a_silent_turn_is_answered_in_finite_numbers(server):
    answer = server.post(**parts([{"role": "speaker", "text": "..."}], ("a.wav", file_of(np.zeros(8000)))))
    assert answer.status_code == 200, answer.text
    assert "NaN" not in answer.text


def test_a_strategy_can_be_forced(server):
    replies = {name: server.post(dialogue(1.0, strategy=name)).json() for name in ("comfort", "encourage")}
    assert {name: reply["strategy"] for name, reply in replies.items()} == {name: name for name in replies}
    assert replies["comfort"]["prosody"]["rate"] < replies["encourage"]["prosody"]["rate"]


def test_clauses_come_in_more_pieces_than_sentences(server):
    counts = {}
    for unit in ("sentence", "clause"):
        events = events_of(server.post(dialogue(1.0, unit=unit), accept=EVENTS).text)
        assert "before, all along" in dict(events)["end"]["text"]
        counts[unit] = [name for name, _ in events].count("audio")
    assert counts["clause"] > counts["sentence"] > 0


def test_sampling_follows_the_options(server):
    texts = {server.post(dialogue(1.0, temperature=1.5, top_k=0)).json()["text"] for _ in range(4)}
    greedy = {server.post(dialogue(1.0, temperature=1.5, top_k=1)).json()["text"] for _ in range(2)}
    assert len(texts) > 1
    assert len(greedy) == 1


# -- beside replies ----------------------------------------------------------------------------------------------------


def test_a_client_can_ask_what_there_is_to_ask_for(server):
    model = server.ask("GET", "/v1/model").json()
    assert model["strategies"] == ["comfort", "neutral", "encourage"]
    assert model["recognizer"] == "pocketsphinx"
    assert model["limits"]["body_bytes"] == 32 * 2**20
    assert model["notice"] == NOTICE


def test_it_lives_and_is_ready(server):
    assert server.ask("GET", "/health").json() == {"status": "ok"}
    assert server.ask("GET", "/ready").json() == {"status": "ready"}


def test_metrics_count_requests_by_route_and_status_and_time_the_first_sound(server):
    good = 'es4r_requests_total{method="POST",route="/v1/replies",status="200"}'
    bad = 'es4r_requests_total{method="POST",route="/v1/replies",status="422"}'
    names = (good, bad, 'es4r_rejected_total{reason="invalid"}', "es4r_first_audio_seconds_count")
    before = [server.figure(name) for name in names]
    server.post(dialogue(0.5))
    server.post({"turns": []})
    assert [server.figure(name) - was for name, was in zip(names, before)] == [1, 1, 1, 1]
    assert server.figure("es4r_in_flight") == 1  # the one that asks
    assert server.figure("es4r_waiting") == 0
    assert server.figure("process_resident_memory_bytes") > 1e8


def test_metrics_have_no_row_for_what_clients_think_up(server):
    server.ask("GET", "/made-up/by-a-client")
    server.ask("BREW", "/v1/replies")
    text = server.ask("GET", "/metrics").text
    assert "made-up" not in text
    assert "BREW" not in text


def test_the_page_needs_nothing_from_elsewhere(server):
    page = server.ask("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    for tag in ("<script", "<link", "<img", "src=", "@import", "url("):
        assert tag not in page.text
    for code in ("malformed", "too_large", "media_type", "invalid", "busy", "timeout"):
        assert f"<code>{code}</code>" in page.text


def test_the_schema_holds_examples_and_every_error(server):
    operation = server.ask("GET", "/openapi.json").json()["paths"]["/v1/replies"]["post"]
    assert {*operation["responses"]} == {
        *("200", "400", "401", "403", "406", "408", "413", "415", "422", "500", "503", "504")
    }
    example = operation["requestBody"]["content"]["application/json"]["example"]
    reply = server.post(example)
    assert reply.status_code == 200, reply.text
    assert reply.json()["strategy"] == example["options"]["strategy"]


# -- who goes away -----------------------------------------------------------------------------------------------------


def test_a_client_that_goes_away_ends_its_reply_within_a_tenth_of_a_second(server):
    took = []
    for _ in range(5):
        gone = server.figure('es4r_rejected_total{reason="gone"}')
        with httpx2.stream(
            "POST", f"{server.url}/v1/replies", json=dialogue(1.0), headers={"Accept": EVENTS}, timeout=PATIENCE
        ) as answer:
            next(answer.iter_raw())
            working = bool(reply_threads())
        seconds = wait_until(lambda: not reply_threads())
        took += [seconds] if working else []
        wait_until(lambda before=gone: server.figure('es4r_rejected_total{reason="gone"}') > before)
    # The quickest: other tests may share the machine.
    assert min(took) < 0.1
    assert list(server.folder.iterdir()) == []


def test_a_server_that_is_stopped_lets_replies_end(responder, tmp_path):
    with serving(responder, tmp_path) as server:
        with httpx2.stream(
            "POST", f"{server.url}/v1/replies", json=dialogue(1.0), headers={"Accept": EVENTS}, timeout=PATIENCE
        ) as answer:
            pieces = answer.iter_text()
            first = next(pieces)
            server.stop()
            names = [name for name, _ in events_of(first + "".join(pieces))]
        assert names[-1] == "end"
        with pytest.raises(httpx2.ConnectError):
            server.ask("GET", "/health")
