"""es4r convert-checkpoint, convert-styletts2 and convert-kokoro."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from es4r_toolkit.cli.options import Revision
from es4r_toolkit.cli.printing import progress


def convert_checkpoint(
    source: Annotated[str, typer.Argument(help="Hub name or local folder, with pytorch_model.bin or several such.")],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    revision: Revision = None,
) -> None:
    """Turn an encoder, language model or recognizer published as a pickle into safetensors, once.

    Nothing in the pickle is executed. Configuration and tokenizer go along.

    \b
    Example:
      es4r convert-checkpoint microsoft/wavlm-large --output wavlm-large
    """
    from es4r_toolkit.backends.checkpoint_convert import convert

    folder = convert(source, output, revision, progress)
    typer.echo(f"written to {folder}; use it as a source, such as --encoder_source={folder}")


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
