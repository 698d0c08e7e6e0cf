"""es4r evaluate."""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from es4r_toolkit.cli.options import AsJson
from es4r_toolkit.cli.printing import complain, one_line, print_json, print_metrics, progress
from es4r_toolkit.cli.speech import NOBODY, POCKETSPHINX, Listening, hear_systems

if TYPE_CHECKING:
    from es4r_toolkit.metrics.evaluation import Evaluation
    from es4r_toolkit.metrics.examples import Example
    from es4r_toolkit.metrics.hearing import HeardReply

SPEECH_FILE = "speech.jsonl"


def evaluate(
    predictions: Annotated[
        Path | None,
        typer.Argument(
            help="Lines of response and reference: a .jsonl file, or a folder that has predictions.jsonl.",
            show_default="those of --speech",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Folder for metrics.json and report.html.", show_default="that of the predictions"),
    ] = None,
    slots: Annotated[
        Path | None, typer.Option(help="Slot table.", show_default="slots.json beside the predictions")
    ] = None,
    representations: Annotated[
        Path | None,
        typer.Option(
            help="A .jsonl file of what the model made of each turn.",
            show_default="representations.jsonl beside the predictions",
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Another system's predictions on the same dialogues, as PREDICTIONS.", show_default="none"),
    ] = None,
    bertscore: Annotated[
        str | None, typer.Option(help="Model for BERTScore: a folder, or a hub name such as roberta-large.")
    ] = None,
    bertscore_layer: Annotated[
        int | None, typer.Option(min=0, help="Its layer.", show_default="bert-score's, or 3/4 of an unknown model")
    ] = None,
    bertscore_revision: Annotated[str | None, typer.Option(help="Its branch, tag or commit on the hub.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Show published figures too, marked as such.")] = False,
    speech: Annotated[
        Path | None, typer.Option(help="Measure speech too: a folder of es4r respond, or a .jsonl with audio_path.")
    ] = None,
    compare_speech: Annotated[
        Path | None,
        typer.Option(help="The other system's speech, as --speech.", show_default="that beside --compare, if any"),
    ] = None,
    recognizer: Annotated[
        str, typer.Option(help="Who hears word errors: pocketsphinx, none, or a Whisper (folder or hub name).")
    ] = POCKETSPHINX,
    language: Annotated[str | None, typer.Option(help="What the Whisper hears, such as en.")] = None,
    mos: Annotated[
        Path | None, typer.Option(help="TorchScript model of opinion scores, (waveform, sample rate) -> score.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the program that is in the --mos file run.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that measure speech.", show_default="every core; 1 with Whisper or --mos"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where BERTScore, Whisper and --mos run, such as cuda:0.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Score replies against references, and how they were spoken.

    Gives BLEU, ROUGE, METEOR and distinct-n, BERTScore where a model is named, slot accuracies where slots are given,
    and the dialogue cohesion ratio where representations are, each but distinct-n with the 95 % interval of a
    bootstrap over dialogues. With --compare, by how much this system scores better than another, and how likely chance
    makes such a difference of equal ones. With --speech, word errors, rate, pitch and loudness of the spoken replies,
    and whether they follow the strategy; with another system's speech, by how much that differs. Every figure is
    defined in docs/evaluation_metrics.md.

    \b
    Example:
      es4r evaluate results/predictions.jsonl --output results
      es4r evaluate --speech answers --recognizer openai/whisper-small --published
      es4r evaluate --speech ours --compare-speech theirs
    """
    from es4r_toolkit.data.predictions import predictions_in
    from es4r_toolkit.data.responses import PREDICTIONS, make_folder, write_json

    _check_usage(predictions, bertscore, bertscore_layer, speech, compare_speech, recognizer, language, mos)
    path, notes = None if predictions is None else predictions_in(predictions), []
    if path is None and (speech / PREDICTIONS).is_file():
        path = speech / PREDICTIONS
    elif path is None:
        notes.append(f"{speech} holds no {PREDICTIONS}: speech alone is measured")
    metrics: dict[str, object] = {}
    shown: list[Example] = []
    left_out: dict[str, list[dict[str, object]]] = {}
    source = path or speech
    folder = output or (source if source.is_dir() else source.parent)
    if path is not None:
        compare = None if compare is None else predictions_in(compare)
        texts = _texts(path, slots, representations, compare, bertscore, bertscore_layer, bertscore_revision, device)
        metrics, shown = texts.metrics, texts.examples
        left_out, notes = _rejected(texts, path, representations), [*notes, *texts.notes]
    make_folder(folder)
    replies: dict[Path, list[HeardReply]] = {}
    if speech is not None:
        listening = Listening(recognizer, language, mos, trust_remote_code, workers, device)
        spoken = hear_systems(listening, speech, compare, compare_speech)
        metrics, notes, replies = metrics | spoken.metrics, [*notes, *spoken.notes], spoken.replies
        left_out["rejected_speech"] = [vars(fault) for fault in spoken.rejected]
        _write_replies(folder / SPEECH_FILE, replies.get(speech, []))
    if published:
        from es4r_toolkit.metrics.published import published_tables

        metrics["published"] = [table.as_dict() for table in published_tables()]
    for note in notes:
        typer.echo(f"note: {one_line(note)}", err=True)
    write_json(folder / "metrics.json", metrics)
    if shown or replies:
        systems = [source, compare or compare_speech]
        _write_page(folder / "report.html", [one for one in systems if one], metrics, shown, notes, replies)
    if as_json:
        print_json({"metrics": metrics, **left_out, "notes": notes})
    else:
        print_metrics(metrics)
        beside = " and report.html" if shown or replies else ""
        typer.echo(f"written to {folder / 'metrics.json'}{beside}")
    raise typer.Exit(1 if any(left_out.values()) else 0)


def _write_page(
    page: Path,
    systems: list[Path],
    metrics: dict[str, object],
    shown: list[Example],
    notes: list[str],
    spoken: dict[Path, list[HeardReply]],
) -> None:
    """The scores and the worst replies, with their sound where there is any."""
    from es4r_toolkit.data.replies import read_replies
    from es4r_toolkit.report.evaluation_page import write_evaluation

    recordings = []
    for sources in zip_longest(systems, spoken):
        # What cannot be read was named before.
        replies = [reply for source in sources if source is not None for reply in read_replies(source)[0]]
        recordings.append({reply.id: reply.audio for reply in replies if reply.audio is not None})
    title = " against ".join("/".join(system.resolve().parts[-2:]) for system in systems)
    write_evaluation(page, title, metrics, shown, recordings, notes, list(spoken.values()))


def _check_usage(
    predictions: Path | None,
    bertscore: str | None,
    layer: int | None,
    speech: Path | None,
    compare_speech: Path | None,
    recognizer: str,
    language: str | None,
    mos: Path | None,
) -> None:
    if predictions is None and speech is None:
        raise typer.BadParameter("name a file of predictions, or --speech", param_hint="PREDICTIONS")
    if layer is not None and bertscore is None:
        raise typer.BadParameter("it is the layer of --bertscore, which names no model", param_hint="--bertscore-layer")
    if mos is not None and speech is None:
        raise typer.BadParameter("it scores --speech, which is not given", param_hint="--mos")
    if compare_speech is not None and speech is None:
        raise typer.BadParameter("it is compared with --speech, which is not given", param_hint="--compare-speech")
    if language is not None and recognizer in (POCKETSPHINX, NOBODY):
        raise typer.BadParameter("it is for a Whisper; pocketsphinx hears English", param_hint="--language")


def _texts(
    path: Path,
    slots: Path | None,
    representations: Path | None,
    compare: Path | None,
    model: str | None,
    layer: int | None,
    revision: str | None,
    device: str,
) -> Evaluation:
    from es4r_toolkit.metrics.evaluation import evaluate as score

    bertscore = None
    if model is not None:
        from es4r_toolkit.backends.bertscore import BertScore

        bertscore = BertScore(model, layer, revision, device)
    return score(path, slots, representations, compare, bertscore, progress)


def _rejected(texts: Evaluation, path: Path, representations: Path | None) -> dict[str, list[dict[str, object]]]:
    """What of the texts is left out, told on stderr."""
    from es4r_toolkit.data.representations import REPRESENTATIONS

    turns = representations or path.with_name(REPRESENTATIONS)
    for place, rejected in ((path, texts.rejected), (turns, texts.unlike)):
        for rejection in rejected:
            complain(rejection.error(place))
    kinds = {"rejected": texts.rejected, "rejected_representations": texts.unlike}
    return {name: [vars(rejection) for rejection in rejected] for name, rejected in kinds.items()}


def _write_replies(path: Path, replies: list[HeardReply]) -> None:
    """What was measured of each reply, a line each."""
    from es4r_toolkit.data.responses import write_text

    write_text(path, "".join(json.dumps(reply.as_dict(), ensure_ascii=False) + "\n" for reply in replies))
