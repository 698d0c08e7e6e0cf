"""The page itself: what stands where, and what happens when something is pressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

import gradio as gr

from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.demo import drawing
from es4r_toolkit.demo.models import AUTOMATIC, OWN_VOICE, OfferedModel, voices
from es4r_toolkit.demo.recording import MOST_CHARACTERS, readable, take, typed
from es4r_toolkit.demo.replying import Shown, replying, silence
from es4r_toolkit.demo.visit import Said, Visit, typed_turn
from es4r_toolkit.dialogue import SPEAKER, Dialogue
from es4r_toolkit.errors import ConfigError, ES4RError

TITLE = "ES4R: a voice that answers"
MOST_EXAMPLES = 6
SAY_SOMETHING = "Record a few words, choose a recording or type something first."
SOUNDING = '<p class="sounding" role="status"><i></i><i></i><i></i>The synthetic voice speaks</p>'
AT_ONCE = 16  # replies on their way; more would leave no thread to interrupt with
KEPT = 3600.0  # seconds for which a dialogue is kept after it was last changed
UNSENT = (60, 600)  # seconds: how often uploads that were never sent are looked for, and how old they may be
# Handlers of the page alone; nothing of it is offered as an interface to programs.
QUIET = {"show_progress": "hidden", "api_visibility": "private"}


def build_page(models: Sequence[OfferedModel], examples: Sequence[Dialogue] = ()) -> gr.Blocks:
    """The page, ready to be served.

    Arguments
    ---------
    models : sequence of OfferedModel
        The first is chosen to begin with.
    examples : sequence of Dialogue
        Dialogues with recordings to begin with; the first ``MOST_EXAMPLES`` are offered.
    """
    return _Page(models, examples).blocks


class _Page:
    def __init__(self, models: Sequence[OfferedModel], examples: Sequence[Dialogue]):
        self.models = {model.label: model for model in models}
        first = next(iter(self.models.values()))
        self.blocks = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=UNSENT, fill_width=True)
        with self.blocks:
            self.visit = gr.State(None, time_to_live=KEPT, delete_callback=_close)
            _html(drawing.heading())
            with gr.Row(elem_id="choices"):
                self.model = gr.Dropdown(list(self.models), value=first.label, label="Model", filterable=False)
                self.voice = gr.Dropdown(voices(), value=OWN_VOICE, label="Voice", filterable=False)
                self.strategy = gr.Dropdown(
                    [AUTOMATIC, *first.strategies], value=AUTOMATIC, label="Strategy", filterable=False
                )
            self.about = _html(drawing.about(first))
            with gr.Row(elem_id="columns"):
                with gr.Column(scale=10, min_width=320, elem_id="talk"):
                    self._dialogue_column(examples)
                with gr.Column(scale=19, min_width=320):
                    self.why = _html(drawing.why(), elem_id="why")
            self._connect()

    def _dialogue_column(self, examples: Sequence[Dialogue]) -> None:
        with gr.Column(elem_id="dialogue"):
            self.chat = _html(drawing.chat([]), js_on_load=_text("chat.js"), elem_id="chat")
            self.now = _html("", js_on_load=_text("chat.js"), elem_id="now")
        self.player = _html(silence(), html_template=SOUNDING, js_on_load=_text("player.js"), elem_id="player")
        self.status = _html("", elem_id="status")
        with gr.Column(elem_id="composer"):
            self.recording = gr.Audio(
                sources=["microphone", "upload"],
                type="filepath",
                label="Your turn: speak, or choose a recording",
                editable=False,
                buttons=[],
                elem_id="recording",
            )
            self.words = gr.Textbox(
                label="Its words, if you like",
                info="Without a recording, the synthetic voice reads them out; then nothing of you can be heard in it.",
                placeholder="I lost my job this morning.",
                max_length=MOST_CHARACTERS,
                lines=1,
                elem_id="words",
            )
            with gr.Row(elem_id="buttons"):
                self.send = gr.Button("Send", variant="primary", elem_id="send", min_width=90)
                self.stop = gr.Button("Interrupt", elem_id="interrupt", min_width=90)
                self.restart = gr.Button("Start over", elem_id="start-over", min_width=90)
        self.examples = self._example_buttons(examples)

    def _example_buttons(self, examples: Sequence[Dialogue]) -> dict[gr.Button, Dialogue]:
        if not examples:
            _html('<p class="remark">No example dialogues are here; --examples names a manifest of some.</p>')
            return {}
        shown = examples[:MOST_EXAMPLES]
        more = f" (the first {len(shown)} of {len(examples)})" if len(examples) > len(shown) else ""
        _html(f'<h2 class="examples">Or begin with a recorded dialogue{more}</h2>')
        with gr.Column(elem_id="examples"):
            return {gr.Button(_label(one), size="sm", elem_classes="example"): one for one in shown}

    def _connect(self) -> None:
        parts = {
            "visit": self.visit,
            "chat": self.chat,
            "now": self.now,
            "player": self.player,
            "why": self.why,
            "status": self.status,
            "recording": self.recording,
            "words": self.words,
        }
        outputs, choices = list(parts.values()), [self.model, self.voice, self.strategy]

        def shown(updates: Iterator[Shown]) -> Iterator[dict[Any, Any]]:
            for update in updates:
                yield {parts[name]: value for name, value in update.items()}

        def answer(*values: Any) -> Iterator[dict[Any, Any]]:
            yield from shown(self._answer(*values))

        def play(example: Dialogue, *values: Any) -> Iterator[dict[Any, Any]]:
            yield from shown(self._play(example, *values))

        # Who sends while a reply is on its way interrupts it.
        now = {**QUIET, "trigger_mode": "multiple"}
        reply = {**now, "concurrency_limit": AT_ONCE, "concurrency_id": "reply"}
        said = [self.visit, self.recording, self.words, *choices]
        gr.on([self.send.click, self.words.submit], answer, said, outputs, **reply)
        for button, example in self.examples.items():
            button.click(partial(play, example), [self.visit, *choices], outputs, **reply)
        at_once = {**now, "queue": False}
        gr.on([self.stop.click, self.recording.start_recording], _interrupt, self.visit, self.player, **at_once)
        begun = [self.visit, self.chat, self.now, self.player, self.why, self.status]
        self.restart.click(_start_over, self.visit, begun, **at_once)
        self.model.change(self._chosen, self.model, [self.strategy, self.about], **at_once)
        self.blocks.load(Visit, None, self.visit, **at_once)

    def _answer(
        self, visit: Visit | None, recording: str | None, words: str, model: str, voice: str, strategy: str
    ) -> Iterator[Shown]:
        visit = visit or Visit()
        try:
            responder = self._known(self.models, model, "model").speaking_as(_voice(voice))
            words = typed(words)
            if recording:
                rate = responder.sample_rate
                said = Said(SPEAKER, words, take(recording, rate), rate, "typed and recorded" if words else "recorded")
            elif words:
                said = typed_turn(responder, words)
            else:
                yield {"status": drawing.notice(SAY_SOMETHING)}
                return
        except ES4RError as fault:
            # What was uploaded is deleted, so the page lets go of it too.
            yield {"status": drawing.notice(readable(fault)), "recording": None}
            return
        yield {"visit": visit, "recording": None, "words": ""}
        yield from replying(visit, responder, said, _forced(strategy))

    def _play(self, example: Dialogue, visit: Visit | None, model: str, voice: str, strategy: str) -> Iterator[Shown]:
        visit = visit or Visit()
        try:
            responder = self._known(self.models, model, "model").speaking_as(_voice(voice))
            rate = responder.sample_rate
            said = [Said(turn.role, turn.text, load_turn(turn, rate), rate, "recorded") for turn in example.history]
        except ES4RError as fault:
            yield {"status": drawing.notice(readable(fault))}
            return
        visit.start_over()
        for turn in said[:-1]:
            visit.listen(turn)
        yield {"visit": visit, "why": drawing.why()}
        yield from replying(visit, responder, said[-1], _forced(strategy))

    def _chosen(self, model: str) -> tuple[Any, str]:
        chosen = self._known(self.models, model, "model")
        return gr.Dropdown([AUTOMATIC, *chosen.strategies], value=AUTOMATIC), drawing.about(chosen)

    @staticmethod
    def _known(offered: dict[str, OfferedModel], name: str, what: str) -> OfferedModel:
        if name not in offered:
            raise ConfigError(f"the {what}", "is none of those offered", "choose one of the list")
        return offered[name]


def _voice(name: str) -> str:
    if name not in voices():
        raise ConfigError("the voice", "is none of those offered", "choose one of the list")
    return name


def _forced(strategy: str) -> str | None:
    return None if strategy == AUTOMATIC else strategy


def _interrupt(visit: Visit | None) -> Shown:
    if visit is not None:
        visit.interrupt()
    return silence()


def _start_over(visit: Visit | None) -> tuple[Any, ...]:
    visit = visit or Visit()
    visit.start_over()
    return visit, drawing.chat([]), "", silence(), drawing.why(), ""


def _html(value: Any = "", **options: Any) -> gr.HTML:
    return gr.HTML(value, **{"js_on_load": None, "apply_default_css": False, **options})


def _close(visit: Visit | None) -> None:
    if visit is not None:
        visit.start_over()


def _label(example: Dialogue) -> str:
    words = example.history[0].text
    words = words if len(words) <= 48 else words[:47].rstrip() + "…"
    return f"“{words}” ({len(example)} turns)"


def _text(name: str) -> str:
    return files("es4r_toolkit.demo").joinpath(name).read_text(encoding="utf-8")


def theme() -> gr.themes.Base:
    """Fonts of the reader's own system, and the blue of the reports."""
    blue = gr.themes.Color(
        "#eef6fb",
        "#d6eaf6",
        "#aed5ec",
        "#7bb9de",
        "#3d97cb",
        "#0072b2",
        "#00629a",
        "#005282",
        "#004269",
        "#003250",
        "#002238",
    )
    return gr.themes.Base(
        primary_hue=blue,
        neutral_hue="slate",
        radius_size="lg",
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"),
        font_mono=("ui-monospace", "Consolas", "monospace"),
    ).set(
        # The theme's own are too pale to read.
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
    )


def style() -> str:
    """The page's style sheet."""
    return _text("page.css")
