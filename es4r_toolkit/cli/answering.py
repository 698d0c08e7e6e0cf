"""es4r respond."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from es4r_toolkit.cli.options import AsJson, Confined, Device, ModelFolder, Precision, Revision, Table, TrustRemoteCode
from es4r_toolkit.cli.printing import complain, print_beside_bar, print_json, progress
from es4r_toolkit.errors import ES4RError


def respond(
    dialogues: Annotated[
        Path, typer.Argument(help="Dialogues: a .json, .jsonl, .csv or .tsv file; response may be absent.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for the answers; each dialogue gets one inside it.")],
    model: ModelFolder = None,
    revision: Revision = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
    trust_remote_code: TrustRemoteCode = False,
    seed: Annotated[int, typer.Option(min=0, help="Set before each dialogue, so none depends on another.")] = 0,
    feature_store: Annotated[
        Path | None, typer.Option(help="Folder where what is computed of recordings is kept for the next run.")
    ] = None,
    confined: Confined = False,
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
    report = read_manifest(dialogues, decode=True, need_text=False, confined=confined, **options)
    for rejection in report.rejected:
        complain(rejection.error(dialogues))
    make_folder(output)
    folders = folder_names(dialogue.id for dialogue in report.dialogues)
    answered, failed, predictions = [], [], []
    if report.dialogues:
        from es4r_toolkit.inference import EmpathyResponder

        responder = EmpathyResponder.from_hparams(
            model,
            revision=revision,
            trust_remote_code=trust_remote_code,
            run_opts={"device": device, "precision": precision, "feature_store": feature_store},
        )
        for dialogue in progress(report.dialogues, unit="dialogue"):
            folder = output / folders[dialogue.id]
            try:
                answer = _answer(responder, dialogue, folder, seed)
            except ES4RError as error:
                problem = f"{error.item} {error.problem}"
                failed.append(
                    {"item": dialogue.id, "line": None, "field": "answer", "problem": problem, "mend": error.mend}
                )
                complain(error, of=dialogue.id)
                continue
            answered.append({"id": dialogue.id, "folder": str(folder), **answer})
            if dialogue.response is not None:
                pair = {"id": dialogue.id, "response": answer["text"], "reference": dialogue.response.text}
                predictions.append({**pair, "slots": dialogue.slots} if dialogue.slots else pair)
            if not as_json:
                print_beside_bar(f"{dialogue.id}  [{answer['strategy']}]  {answer['text']}  {folder}")
    if predictions:
        write_predictions(output, predictions)
    rejected = [*(vars(rejection) for rejection in report.rejected), *failed]
    if as_json:
        print_json({"answered": answered, "rejected": rejected})
    else:
        typer.echo(f"{len(answered)} answered, {len(rejected)} rejected")
    raise typer.Exit(1 if rejected else 0)


def _answer(responder: object, dialogue: object, folder: Path, seed: int) -> dict[str, object]:
    import torch

    from es4r_toolkit.data.responses import write_response

    torch.manual_seed(seed)
    response = responder.respond(dialogue)
    answer = response.as_dict()
    write_response(folder, {"id": dialogue.id, "seed": seed, **answer}, response.waveform, response.sample_rate)
    return answer
