"""The recipes of published corpora: one system, one way of learning, each value said once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from es4r_toolkit.hparams import compose, plain
from es4r_toolkit.planning import dry_run, render

RECIPES = Path(__file__).parents[2] / "recipes"
CORPORA = ("IEMOCAP", "MELD", "DailyTalk", "EmpatheticDialogues")
FOLDERS = {"data_folder": "DATA", "output_folder": "OUTPUT"}


def values(corpus: str, file: str = "train.yaml") -> dict:
    return plain(compose(RECIPES / corpus / "hparams" / file, FOLDERS))


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_recipe_trains_the_papers_system_as_the_papers_recipe_does(corpus):
    paper, recipe = values("AvaMERG", "train_qwen3.yaml"), values(corpus)
    assert recipe["losses"].pop("emotion") == recipe["emotion_weight"] == 0
    for one in (paper, recipe):
        one.pop("prepare")
    assert {key: recipe[key] for key in paper} == paper


def test_a_recipe_is_planned_before_its_corpus_is_there(offline):
    # One will do: that all are composed alike is held above.
    plan = render(dry_run(RECIPES / "IEMOCAP" / "hparams" / "train.yaml", FOLDERS))
    assert "Qwen/Qwen3-8B" in plan


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_readme_says_what_to_get_and_on_what_terms(corpus):
    page = (RECIPES / corpus / "README.md").read_text()
    headings = re.findall("^## (.*)$", page, re.MULTILINE)
    assert headings == ["Get the corpus", "What to expect", "What is made of it", "Train"]
    assert "Licence" in page
    assert f"recipes/{corpus}/train.py recipes/{corpus}/hparams/train.yaml" in page
    options = set(re.findall(r"--([a-z_]+)=", page)) - {"device", "precision", "nproc-per-node"}
    text = (RECIPES / corpus / "hparams" / "train.yaml").read_text()
    model = (RECIPES / "AvaMERG" / "hparams" / "model.yaml").read_text()
    unknown = {one for one in options if not re.search(rf"^{one}:", text + model, re.MULTILINE)}
    assert unknown <= {"grad_accumulation_factor", "llm_source", "encoder_source"}
