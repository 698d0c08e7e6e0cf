"""es4r evaluate: BERTScore, published figures and speech, as a user calls them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from text_models import save_bert
from typer.testing import CliRunner

from es4r_toolkit.backends.espeak import EspeakSynthesizer
from es4r_toolkit.cli import app
from es4r_toolkit.data.responses import write_predictions, write_response
from es4r_toolkit.lobes.energy_strategy import Prosody
from es4r_toolkit.metrics.published import published_tables

STRATEGIES = {"comfort": Prosody(0.8, 1.3, -2.0, -4.0), "neutral": Prosody(), "encourage": Prosody(1.2, 0.8, 2.0, 3.0)}
SAID = ["I am so sorry to hear that.", "Your mother must be proud of you.", "Tell me more about your day at work."]


def run(*arguments: object, status: int = 0):
    result = CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == status, result.output
    return result


@pytest.fixture
def predictions(tmp_path):
    write_predictions(tmp_path, [{"response": "i am so sorry.", "reference": "i am sad."}] * 3)
    return tmp_path / "predictions.jsonl"


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Eighteen replies, each sentence spoken twice with each strategy, as es4r respond writes them."""
    pytest.importorskip("espeakng_loader", reason="the espeak extra is not installed")
    folder = tmp_path_factory.mktemp("answers")
    with EspeakSynthesizer(sample_rate=16000) as voice:
        for place, (text, name) in enumerate((text, name) for text in SAID for name in [*STRATEGIES] * 2):
            prosody = STRATEGIES[name]
            answer = {"id": str(place), "text": text, "strategy": name, "prosody": asdict(prosody)}
            honours = {"honours": sorted(voice.honours)}
            write_response(folder / str(place), answer | honours, voice.synthesize(text, prosody=prosody), 16000)
    return folder


# -- text ------------------------------------------------------------------------------------------------------------


def test_bertscore_is_printed_with_what_it_depends_on(tmp_path, predictions):
    pytest.importorskip("bert_score", reason="the bertscore extra is not installed")
    model = save_bert(tmp_path / "bert")
    output = run(predictions, "--bertscore", model, "--bertscore-layer", 1).stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0.3 < metrics["bertscore"] < 1
    assert f"bertscore      {metrics['bertscore']:.4f}  [" in output
    assert f"{model}_L1_no-idf_version=" in output
    assert "layer by you" in output


def test_published_figures_stand_apart_and_each_is_marked(tmp_path, predictions):
    output = run(predictions, "--published").stdout
    own, theirs = output.split("published, not measured here: ")
    assert "ES4R" not in own
    rows = [line for line in theirs.splitlines() if "0." in line]
    assert len(rows) == 11
    assert all("  published" in row for row in rows)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (table,) = metrics["published"]
    assert all(row["published"] is True and "2601.16225" in row["source"] for row in table["rows"])
    assert "published" not in json.loads(run(predictions, "--json").stdout)["metrics"]


def test_the_published_table_is_whole_and_within_its_bounds():
    (table,) = published_tables()
    assert all(len(row.scores) == 10 and all(0 < score < 1 for score in row.scores.values()) for row in table.rows)
    bleu = {row.system: [row.scores[f"bleu{order}"] for order in (1, 2, 3, 4)] for row in table.rows}
    falling = [system for system, scores in bleu.items() if scores != sorted(scores, reverse=True)]
    # Only the row that says so of itself has a BLEU of higher order above one of lower.
    assert falling == [row.system for row in table.rows if row.remark] == ["LLaMA-Omni 2"]


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("a.jsonl", "--bertscore-layer", 3),
        ("a.jsonl", "--mos", "mos.pt"),
        ("--speech", "answers", "--language", "en"),
        ("--speech", "answers", "--workers", 0),
    ],
)
def test_options_that_say_nothing_are_wrong_usage(wrong):
    run(*wrong, status=2)


# -- speech ----------------------------------------------------------------------------------------------------------


def test_a_voice_that_honours_its_strategies_is_found_to_do_so(tmp_path, answers):
    result = run("--speech", answers, "--recognizer", "none", "--output", tmp_path)
    speech = json.loads((tmp_path / "metrics.json").read_text())["speech"]
    assert speech["heard"] == 18
    for field, found in speech["agreement"].items():
        assert found["correlation_interval"][0] > 0.5, field
        # espeak-ng widens its range by more than it is asked for; the others it follows closely.
        assert 0.65 < found["slope"] < (1.7 if field == "expressiveness" else 1.35), field
    assert list(speech["agreement"]) == ["rate", "pitch_shift", "expressiveness", "energy"]
    means = speech["by_strategy"]
    assert means["comfort"]["level"] < means["neutral"]["level"] < means["encourage"]["level"]
    assert "pitch_shift     median F0" in result.stdout
    assert len((tmp_path / "speech.jsonl").read_text().splitlines()) == 18
    assert "speech alone is measured" in result.stderr
    assert "honour" not in result.stderr


def test_a_recognizer_hears_the_words_and_text_is_scored_beside(tmp_path, answers):
    pytest.importorskip("pocketsphinx", reason="the asr extra is not installed")
    proud = SAID.index("Your mother must be proud of you.") * 6 + 1
    shutil.copytree(answers / str(proud), tmp_path / str(proud))
    write_predictions(tmp_path, [{"id": str(proud), "response": "so it is", "reference": "so it is"}])
    report = json.loads(run("--speech", tmp_path, "--json").stdout)
    assert report["metrics"]["bleu1"] == 1
    speech = report["metrics"]["speech"]
    assert speech["recognizer"] == "pocketsphinx"
    assert 0 <= speech["wer"] < 0.9
    assert "mother" in json.loads((tmp_path / "speech.jsonl").read_text())["heard"]


def test_a_whisper_hears_them_too(tmp_path, answers, whole_whisper_folder):
    lines = [{"id": "0", "response": SAID[0], "audio_path": str(answers / "0" / "response.wav")}]
    source = tmp_path / "replies.jsonl"
    source.write_text(json.dumps(lines[0]) + "\n")
    run("--speech", source, "--recognizer", whole_whisper_folder, "--language", "de")
    speech = json.loads((tmp_path / "metrics.json").read_text())["speech"]
    assert speech["recognizer"] == f"{whole_whisper_folder} (de)"
    assert speech["wer"] > 0.5


def test_speech_that_cannot_be_heard_makes_the_status_1(tmp_path, answers):
    for place in ("1", "2"):
        shutil.copytree(answers / place, tmp_path / place)
    (tmp_path / "2" / "response.wav").unlink()
    result = run("--speech", tmp_path, "--recognizer", "none", "--json", status=1)
    report = json.loads(result.stdout)
    assert report["metrics"]["speech"]["heard"] == 1
    assert [fault["item"] for fault in report["rejected_speech"]] == ["2"]
    assert "error: 2: has no speech" in result.stderr


def test_a_model_of_opinions_runs_where_it_is_trusted(tmp_path, answers):
    class Five(torch.nn.Module):
        def forward(self, waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
            return torch.full((1,), 4.5)

    torch.jit.script(Five()).save(str(tmp_path / "mos.pt"))
    arguments = ("--speech", answers, "--recognizer", "none", "--mos", tmp_path / "mos.pt", "--output", tmp_path)
    assert "say --trust-remote-code" in run(*arguments, status=1).stderr
    assert "mos                   4.5000  [4.5000, 4.5000]" in run(*arguments, "--trust-remote-code").stdout
