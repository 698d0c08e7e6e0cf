"""BERTScore against its plain formula, with BERTs that the test makes."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from text_models import save_bert, save_roberta
from transformers import AutoModel, AutoTokenizer

from es4r_toolkit.errors import BackendError, ConfigError
from es4r_toolkit.metrics.evaluation import evaluate

pytest.importorskip("bert_score", reason="the bertscore extra is not installed: pip install 'es4r-toolkit[bertscore]'")

from es4r_toolkit.backends.bertscore import BertScore

REPLIES = ["i am so sorry.", "are you happy today?", "glad", "you are sad"]
REFERENCES = ["i am sad.", "are you happy today?", "so glad, so happy.", "i am so sorry."]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    return save_roberta(tmp_path_factory.mktemp("models") / "roberta")


def by_formula(folder, layer: int, reply: str, reference: str, prefix: str = "") -> float:
    """Zhang et al. (2020), Sec. 3: each token and its nearest in the other text, their marks only as neighbours."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    states = []
    for text in (reply, reference):
        ids = tokenizer(prefix + text, return_tensors="pt").input_ids
        with torch.no_grad():
            state = model(ids, output_hidden_states=True).hidden_states[layer][0]
        states.append(state / state.norm(dim=1, keepdim=True))
    cosines = states[0] @ states[1].T
    precision = cosines.max(dim=1).values[1:-1].mean()
    recall = cosines.max(dim=0).values[1:-1].mean()
    return float(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_it_is_the_f_measure_of_nearest_tokens(bert, layer):
    found = BertScore(bert, layer)(REPLIES, REFERENCES)
    assert found == pytest.approx([by_formula(bert, layer, *pair) for pair in zip(REPLIES, REFERENCES)], abs=1e-6)
    assert found[1] == pytest.approx(1)
    assert len({round(score, 6) for score in found}) == 4


def test_a_roberta_gets_the_space_before_its_first_word(roberta):
    found = BertScore(roberta, 2)(REPLIES, REFERENCES)
    with_space = [by_formula(roberta, 2, *pair, prefix=" ") for pair in zip(REPLIES, REFERENCES)]
    without = [by_formula(roberta, 2, *pair) for pair in zip(REPLIES, REFERENCES)]
    assert found == pytest.approx(with_space, abs=1e-6)
    assert found != pytest.approx(without, abs=1e-3)


def test_empty_replies_score_nothing_and_change_no_other(bert):
    score = BertScore(bert)
    alone = score(REPLIES[:1], REFERENCES[:1])
    assert BertScore(bert)(["", REPLIES[0], " \n"], REFERENCES[:1] * 3) == [0.0, pytest.approx(alone[0]), 0.0]


def test_a_text_longer_than_its_positions_is_cut(bert, roberta):
    for folder in (bert, roberta):
        (found,) = BertScore(folder)(["so sad " * 50], ["i am sad."])
        assert 0 < found < 1


@pytest.mark.parametrize(
    ("name", "layers", "expected", "by"),
    [
        ("mine", 4, 3, "three quarters"),
        ("mine", 1, 1, "three quarters"),
        # The library's table has layer 4 for it, and 9 for the second, which is deeper than this one.
        ("distilbert-base-uncased-distilled-squad", 4, 4, "bert-score, for distilbert"),
        ("bert-base-uncased", 4, 3, "three quarters"),
    ],
)
def test_the_layer_is_the_library_s_where_it_knows_the_model(tmp_path, name, layers, expected, by):
    score = BertScore(save_bert(tmp_path / name, layers))
    assert (score.layer, score.layers) == (expected, layers)
    assert score.layer_by.startswith(by)


def test_a_layer_that_is_not_there_is_refused(bert):
    with pytest.raises(ConfigError, match="must be 0 to 3"):
        BertScore(bert, 4)


def test_no_folder_and_no_safetensors_are_refused(tmp_path, offline):
    with pytest.raises(BackendError, match="no such folder"):
        BertScore(tmp_path / "none")
    folder = save_bert(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BackendError, match="es4r convert-checkpoint"):
        BertScore(folder)


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path):
    folder = save_bert(tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(BackendError, match="lacks 16 weights"):
        BertScore(folder)


def test_a_path_that_the_library_would_take_for_a_t5_is_refused(tmp_path):
    with pytest.raises(BackendError, match="holds 't5' in its path"):
        BertScore(save_bert(tmp_path / "part5"))


def test_a_missing_library_says_how_to_get_it(bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(BackendError, match=r"es4r-toolkit\[bertscore\]"):
        BertScore(bert)


def test_an_evaluation_has_it_with_what_it_depends_on(bert, tmp_path):
    for name, replies in (("a", REPLIES), ("b", ["", *REPLIES[:3]])):
        lines = [
            {"id": str(place), "response": reply, "reference": reference}
            for place, (reply, reference) in enumerate(zip(replies, REFERENCES))
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    score, steps = BertScore(bert, 2), []

    def bar(items, unit, total):
        steps.append((unit, total))
        return items

    found = evaluate(tmp_path / "b.jsonl", other=tmp_path / "a.jsonl", bertscore=score, progress=bar)
    metrics = found.metrics
    assert metrics["bertscore"] == pytest.approx(sum(score(["", *REPLIES[:3]], REFERENCES)) / 4)
    assert metrics["interval"]["bertscore"][0] < metrics["bertscore"] < metrics["interval"]["bertscore"][1]
    assert metrics["comparison"]["metrics"]["bertscore"]["difference"] < 0
    settings = metrics["bertscore_settings"]
    assert (settings["layer"], settings["layers"], settings["rescaled"]) == (2, 3, False)
    assert settings["hash"].startswith(f"{bert}_L2_no-idf_version=")
    assert "empty replies score 0 (1)" in found.notes[0]
    # Three pairs, then the four of the other; its own are known when the two are compared.
    assert [total for _, total in steps] == [3, 0, 4]
