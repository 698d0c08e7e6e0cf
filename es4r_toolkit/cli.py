"""The command line: es4r validate, respond and evaluate.

Everything heavy is imported inside the commands, so that --help comes at once.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from typer.core import TyperGroup

from es4r_toolkit import __version__
from es4r_toolkit.errors import ES4RError

if TYPE_CHECKING:
    from es4r_toolkit.data.records import Rejection

EXAMPLES = 3


class OneLineErrors(TyperGroup):
    """Prints a fault that a user can mend as one line on stderr, and exits 1."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except ES4RError as error:
            _complain(error)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="es4r",
    cls=OneLineErrors,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object in place of text.")]
Table = Annotated[Path | None, typer.Option(help="YAML with the columns, roles and samples of a table (docs/data.md).")]


def main() -> None:
    """What the es4r script runs."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"es4r-toolkit {__version__}")
        raise typer.Exit


@app.callback()
def es4r(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Hear how something is said, and answer with empathy.

    Exit status: 0 good, 1 the input is bad, 2 wrong usage.

    \b
    Example:
      es4r validate dialogues.jsonl && es4r respond dialogues.jsonl --output answers
    """


@app.command()
def validate(
    manifest: Annotated[Path, typer.Argument(help="Dialogues: a .jsonl, .json, .csv or .tsv file.")],
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every recording: finds missing ends and NaN samples.")
    ] = False,
    need_text: Annotated[
        bool, typer.Option(help="Reject turns without a transcript; off where a recognizer writes them down.")
    ] = True,
    table: Table = None,
    as_json: AsJson = False,
) -> None:
    """Check a manifest of dialogues and say what is wrong with which.

    \b
    Example:
      es4r validate data/dialogues.jsonl --decode
    """
    from es4r_toolkit.data.manifest import read_manifest
    from es4r_toolkit.data.tables import table_options

    bar = partial(_progress, unit="dialogue")
    options = {} if table is None else {"table": table_options(table)}
    report = read_manifest(manifest, need_text=need_text, decode=decode, progress=bar, **options)
    if as_json:
        good = [dialogue.id for dialogue in report.dialogues]
        _print_json({"good": good, "rejected": [vars(rejection) for rejection in report.rejected]})
    else:
        _print_problems(report.rejected, manifest)
        typer.echo(f"{len(report.dialogues)} good, {len(report.rejected)} rejected")
    raise typer.Exit(1 if report.rejected else 0)


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="A .jsonl file; each line has response and reference.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for metrics.json.", show_default="that of the predictions")
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
        Path | None, typer.Option(help="Another system's predictions on the same dialogues.", show_default="none")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score replies against references.

    Gives BLEU, ROUGE and distinct-n, slot accuracies where slots are given, and the dialogue cohesion ratio where
    representations are, each but distinct-n with the 95 % interval of a bootstrap over dialogues. With --compare, by
    how much this system scores better than another, and how likely chance makes such a difference of equal ones.

    \b
    Example:
      es4r evaluate results/predictions.jsonl --output results
    """
    from es4r_toolkit.data.representations import REPRESENTATIONS
    from es4r_toolkit.data.responses import make_folder, write_json
    from es4r_toolkit.metrics.evaluation import evaluate as score

    evaluation = score(predictions, slots, representations, compare)
    turns = representations or predictions.with_name(REPRESENTATIONS)
    for path, rejected in ((predictions, evaluation.rejected), (turns, evaluation.unlike)):
        for rejection in rejected:
            _complain(rejection.error(path))
    for note in evaluation.notes:
        typer.echo(f"note: {_one_line(note)}", err=True)
    folder = predictions.parent if output is None else output
    make_folder(folder)
    write_json(folder / "metrics.json", evaluation.metrics)
    if as_json:
        left_out = {
            "rejected": [vars(rejection) for rejection in evaluation.rejected],
            "rejected_representations": [vars(rejection) for rejection in evaluation.unlike],
        }
        _print_json({"metrics": evaluation.metrics, **left_out, "notes": evaluation.notes})
    else:
        _print_metrics(evaluation.metrics)
        typer.echo(f"written to {folder / 'metrics.json'}")
    raise typer.Exit(1 if evaluation.rejected or evaluation.unlike else 0)


@app.command()
def respond(
    dialogues: Annotated[
        Path, typer.Argument(help="Dialogues: a .json, .jsonl, .csv or .tsv file; response may be absent.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the answers; each dialogue gets one inside it.")],
    model: Annotated[str | None, typer.Option(help="Folder of a model.", show_default="the shipped model")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs, such as cuda:0.")] = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 for bfloat16 autocast.")] = "fp32",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the model's YAML build classes from outside the package.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Set before each dialogue, so none depends on another.")] = 0,
    table: Table = None,
    as_json: AsJson = False,
) -> None:
    """Answer dialogues in text and speech.

    Writes OUTPUT/<dialogue id>/response.json and response.wav, and OUTPUT/predictions.jsonl for `es4r evaluate` with
    the answers to dialogues that come with a reference. A bad dialogue is named and left out. Turns without a
    transcript are written down by the model's recognizer, and the answer says which those were.

    \b
    Example:
      es4r respond dialogue.json --output answers
    """
    from es4r_toolkit.data.manifest import read_manifest
    from es4r_toolkit.data.responses import folder_names, make_folder, write_predictions
    from es4r_toolkit.data.tables import table_options

    options = {} if table is None else {"table": table_options(table)}
    report = read_manifest(dialogues, decode=True, need_text=False, **options)
    for rejection in report.rejected:
        _complain(rejection.error(dialogues))
    make_folder(output)
    folders = folder_names(dialogue.id for dialogue in report.dialogues)
    answered, failed, predictions = [], [], []
    if report.dialogues:
        from es4r_toolkit.inference import EmpathyResponder

        responder = EmpathyResponder.from_hparams(
            model,
            revision=revision,
            trust_remote_code=trust_remote_code,
            run_opts={"device": device, "precision": precision},
        )
        for dialogue in _progress(report.dialogues, unit="dialogue"):
            folder = output / folders[dialogue.id]
            try:
                answer = _answer(responder, dialogue, folder, seed)
            except ES4RError as error:
                problem = f"{error.item} {error.problem}"
                failed.append(
                    {"item": dialogue.id, "line": None, "field": "answer", "problem": problem, "mend": error.mend}
                )
                _complain(error, of=dialogue.id)
                continue
            answered.append({"id": dialogue.id, "folder": str(folder), **answer})
            if dialogue.response is not None:
                pair = {"id": dialogue.id, "response": answer["text"], "reference": dialogue.response.text}
                predictions.append({**pair, "slots": dialogue.slots} if dialogue.slots else pair)
            if not as_json:
                _print_beside_bar(f"{dialogue.id}  [{answer['strategy']}]  {answer['text']}  {folder}")
    if predictions:
        write_predictions(output, predictions)
    rejected = [*(vars(rejection) for rejection in report.rejected), *failed]
    if as_json:
        _print_json({"answered": answered, "rejected": rejected})
    else:
        typer.echo(f"{len(answered)} answered, {len(rejected)} rejected")
    raise typer.Exit(1 if rejected else 0)


@app.command()
def convert_styletts2(
    checkpoint: Annotated[Path, typer.Argument(help="What its authors publish, such as epochs_2nd_00020.pth.")],
    config: Annotated[Path, typer.Option(help="The config.yml beside it.")],
    plbert: Annotated[Path, typer.Option(help="The config.yml of its PL-BERT.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
) -> None:
    """Turn a published StyleTTS 2 checkpoint, a pickle, into safetensors, once.

    \b
    Example:
      es4r convert-styletts2 epochs_2nd_00020.pth --config config.yml --plbert Utils/PLBERT/config.yml --output voice
    """
    from es4r_toolkit.backends.styletts2_convert import convert

    folder = convert(checkpoint, config, plbert, output)
    typer.echo(f"written to {folder}; speak with it by --voice=styletts2 --voice_source={folder}")


@app.command()
def convert_kokoro(
    source: Annotated[Path, typer.Argument(help="Folder with config.json, one .pth file and voices/*.pt.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
) -> None:
    """Turn published Kokoro files, pickles, into safetensors, once.

    \b
    Example:
      es4r convert-kokoro Kokoro-82M --output voice
    """
    from es4r_toolkit.backends.kokoro_convert import convert

    folder = convert(source, output)
    typer.echo(f"written to {folder}; speak with it by --voice=kokoro --voice_source={folder}")


def _answer(responder: object, dialogue: object, folder: Path, seed: int) -> dict[str, object]:
    import torch

    from es4r_toolkit.data.responses import write_response

    torch.manual_seed(seed)
    response = responder.respond(dialogue)
    answer = response.as_dict()
    write_response(folder, {"id": dialogue.id, "seed": seed, **answer}, response.waveform, response.sample_rate)
    return answer


def _progress(items: object, unit: str) -> object:
    from tqdm import tqdm

    # None shows the bar on a terminal only; files and pipes stay free of it.
    return tqdm(items, unit=unit, file=sys.stderr, disable=None, leave=False)


def _one_line(text: object) -> str:
    """A text without line breaks and without characters that would steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def _print_beside_bar(line: str, err: bool = False) -> None:
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        typer.echo(_one_line(line), err=err)


def _complain(error: ES4RError, of: str | None = None) -> None:
    _print_beside_bar(f"error: {error}" if of is None else f"error: {of}: {error}", err=True)


def _print_json(value: object) -> None:
    # ASCII, so that no terminal or pipe can fail to encode it.
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def _print_problems(rejected: list[Rejection], path: Path) -> None:
    from es4r_toolkit.data.records import place_of

    kinds: dict[str, list[Rejection]] = defaultdict(list)
    for rejection in rejected:
        kinds[rejection.kind].append(rejection)
    for members in sorted(kinds.values(), key=len, reverse=True):
        first = members[0]
        typer.echo(f"{len(members):6d}  {_one_line(first.kind)}")
        for rejection in members[:EXAMPLES]:
            seen = f"{rejection.field} {rejection.problem}"
            place = place_of(path, rejection.line)
            name = place if rejection.item == place else f"{rejection.item} ({place})"
            typer.echo(f"        {_one_line(name)}: {_one_line(seen)}")
        if len(members) > EXAMPLES:
            typer.echo(f"        and {len(members) - EXAMPLES} more")
        typer.echo(f"        mend: {_one_line(first.mend)}")


def _print_metrics(metrics: dict[str, object]) -> None:
    chances = metrics.get("slot_chance", {})
    for name, value in metrics.items():
        if name == "slot_accuracy":
            for slot, accuracy in value.items():
                between = _between(metrics["slot_interval"][slot])
                typer.echo(f"{_one_line(slot):<14} {accuracy:.4f}  {between}  (chance {chances[slot]:.4f})")
        elif name == "cohesion_ratio":
            for kind, ratio in value.items():
                between = _between(metrics["cohesion_interval"].get(kind))
                typer.echo(f"{'cohesion':<14} {ratio:.4f}  {between}  ({_one_line(kind)})")
        elif name == "comparison":
            typer.echo(f"{'':<14} {'this':>8} {'other':>8} {'less':>8}  of {value['paired']} dialogues of both")
            for metric, row in value["metrics"].items():
                numbers = f"{row['first']:>8.4f} {row['second']:>8.4f} {row['difference']:>+8.4f}"
                typer.echo(f"{_one_line(metric):<14} {numbers}  {_between(row['interval'])}  p {row['p']:.4f}")
        elif isinstance(value, float):
            typer.echo(f"{name:<14} {value:.4f}  {_between(metrics['interval'].get(name))}".rstrip())
        elif isinstance(value, int):
            typer.echo(f"{name:<14} {value}")


def _between(interval: list[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"


if __name__ == "__main__":
    main()
