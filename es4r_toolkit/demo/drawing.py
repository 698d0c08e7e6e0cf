"""The page's parts as HTML: the dialogue with its players, the reply that is being spoken, and why it is so."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from es4r_toolkit.demo.models import OfferedModel
from es4r_toolkit.demo.visit import Said
from es4r_toolkit.inference import NOTICE, Response
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.report.content import AnsweredDialogue, AnsweredTurn
from es4r_toolkit.report.dialogue_plots import attention_map, energy_path, energy_words, style_bars
from es4r_toolkit.report.latency_plots import waterfall

MOST_PLAYERS = 16  # the newest turns; each takes a quarter of a megabyte of the page


def chat(turns: Sequence[Said]) -> str:
    """The dialogue so far, the newest turns with players."""
    return _render("chat.html", turns=turns, first_player=len(turns) - MOST_PLAYERS)


def now_speaking(doing: str, strategy: str = "", words: str = "") -> str:
    """The reply as far as it is written."""
    return _render("now.html", doing=doing, strategy=strategy, words=words)


def notice(text: str = "", calm: bool = False) -> str:
    """A line for the reader; an alarm where something is to be mended."""
    return _render("notice.html", text=text, calm=calm)


def about(model: OfferedModel) -> str:
    """What a model is, and what it can and cannot do."""
    synthesis = model.responder.pipeline.synthesis
    return _render("about.html", model=model, strategies=synthesis.strategy.prosodies)


def heading() -> str:
    """What the page is, with the notice that its voice is synthetic."""
    return _render("heading.html", notice=NOTICE)


def drawn(response: Response, pipeline: EmpathyPipeline) -> AnsweredDialogue:
    """A response as the pictures of the reports take it."""
    plan, explanation = response.plan, response.explanation
    seen = {}
    if explanation is not None:
        seen = {
            "attention": explanation.attention,
            "tokens": explanation.tokens,
            "turn_of_token": explanation.turn_of_token,
            "turn_of_position": explanation.turn_of_position,
        }
    return AnsweredDialogue(
        id="the dialogue",
        turns=[
            AnsweredTurn(turn["role"], turn["text"], None, pipeline.sample_rate, energy, style_weight=weight)
            for turn, energy, weight in zip(response.transcripts, plan.energies, plan.style_weights)
        ],
        reply_text=response.text,
        reply_waveform=None,
        reply_sample_rate=response.sample_rate,
        reference=None,
        slots={},
        predicted_slots={},
        strategy=plan.strategy.name,
        strategy_weights=plan.strategy.weights,
        energy_change=plan.strategy.relative_change,
        prosody=vars(plan.strategy.prosody),
        timings=response.timings,
        strategy_turns=pipeline.synthesis.strategy.turns,
        **seen,
    )


def why(response: Response | None = None, pipeline: EmpathyPipeline | None = None, forced: bool = False) -> str:
    """Why the last reply is so, in pictures; what there will be to see, before there is one.

    Arguments
    ---------
    response : Response, optional
        With its explanation.
    pipeline : EmpathyPipeline, optional
        What gave it.
    forced : bool
        Whether its strategy was chosen by hand.
    """
    if response is None:
        return _render("why.html", dialogue=None)
    dialogue, voice = drawn(response, pipeline), pipeline.synthesis.voice
    return _render(
        "why.html",
        dialogue=dialogue,
        energy=energy_path(dialogue),
        energy_words=energy_words(dialogue),
        attention=attention_map(dialogue),
        styles=style_bars(dialogue),
        waterfall=waterfall(dialogue.timings),
        response=response,
        forced=forced,
        honours=sorted(voice.honours),
        takes_styles=voice.style_dim is not None,
    )


def _render(name: str, **values: object) -> str:
    return _pages().get_template(name).render(**values)


@cache
def _pages() -> Environment:
    return Environment(
        loader=PackageLoader("es4r_toolkit", "demo"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
