"""Tables of emotional-speech clips: reading one, and making one of a corpus as its owners publish it.

A table is a CSV file with the columns wav, speaker_id, sentence_id, text and emotion, one clip a row; paths are taken
from the table's own folder.

Example
-------
python recipes/AffectProbe/clips.py ravdess /data/RAVDESS --output ravdess.csv
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from es4r_toolkit.errors import ConfigError, ES4RError

COLUMNS = ("wav", "speaker_id", "sentence_id", "text", "emotion")
SOUNDS = (".wav", ".flac")
Row = dict[str, str]

EMODB_EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "joy",
    "T": "sadness",
    "N": "neutral",
}
# The ten sentences as the database's documentation has them; the English is ours.
EMODB_SENTENCES = {
    "a01": ("Der Lappen liegt auf dem Eisschrank.", "The cloth is lying on the fridge."),
    "a02": ("Das will sie am Mittwoch abgeben.", "She will hand it in on Wednesday."),
    "a04": ("Heute abend könnte ich es ihm sagen.", "Tonight I could tell him."),
    "a05": (
        "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
        "The black piece of paper is up there beside the piece of wood.",
    ),
    "a07": ("In sieben Stunden wird es soweit sein.", "In seven hours it will be time."),
    "b01": (
        "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
        "What are those bags standing there under the table?",
    ),
    "b02": (
        "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
        "They just carried it upstairs and now they are going down again.",
    ),
    "b03": (
        "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
        "At weekends I have always gone home lately and visited Agnes.",
    ),
    "b09": (
        "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
        "I will just take this away and then go for a drink with Karl.",
    ),
    "b10": (
        "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
        "It will be in the place where we always put it.",
    ),
}
RAVDESS_EMOTIONS = ("neutral", "calm", "joy", "sadness", "anger", "fear", "disgust", "surprise")
RAVDESS_SENTENCES = ("Kids are talking by the door.", "Dogs are sitting by the door.")
CREMA_EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "joy",
    "NEU": "neutral",
    "SAD": "sadness",
}
CREMA_SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
ESD_EMOTIONS = {"Neutral": "neutral", "Angry": "anger", "Happy": "joy", "Sad": "sadness", "Surprise": "surprise"}
ESD_SENTENCES = 350  # each speaker says the same ones under every emotion, numbered on


@dataclass(frozen=True)
class Clip:
    """One recording of one sentence.

    Attributes
    ----------
    wav : Path
    speaker, sentence : str
        Their ids.
    text : str
        What is said.
    emotion : str
    """

    wav: Path
    speaker: str
    sentence: str
    text: str
    emotion: str


# ---------------------------------------------------------------------------------------------------------------------
# Reading a table


def read_clips(path: str | Path, columns: Mapping[str, str] | None = None) -> tuple[list[Clip], list[str]]:
    """Read a table of clips.

    Arguments
    ---------
    path : str or Path
    columns : mapping, optional
        Which of its columns to take for one of COLUMNS, where it has another name.

    Returns
    -------
    clips : list of Clip
    problems : list of str
        What is wrong with each row that is left out.

    Raises
    ------
    ConfigError
        If the table cannot be read, lacks a column or has no usable row.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ConfigError(path, f"cannot be read ({' '.join(str(error).split())[:200]})", "give a CSV file") from error
    names = {column: (columns or {}).get(column, column) for column in COLUMNS}
    missing = sorted(set(names.values()) - set(table.columns))
    if missing:
        raise ConfigError(path, f"lacks the columns {missing}", f"it has {list(table.columns)}")
    clips, problems = [], []
    for line, row in enumerate(table[list(names.values())].itertuples(index=False), start=2):
        values = dict(zip(names, (value.strip() for value in row)))
        empty = [names[column] for column, value in values.items() if not value]
        wav = path.parent / values["wav"]
        if empty:
            problems.append(f"{path}, line {line}: {', '.join(empty)} empty")
        elif not wav.is_file():
            problems.append(f"{path}, line {line}: {values['wav']} does not exist")
        else:
            clips.append(Clip(wav, values["speaker_id"], values["sentence_id"], values["text"], values["emotion"]))
    if not clips:
        raise ConfigError(path, f"holds no usable clip ({len(problems)} left out)", problems[0] if problems else "")
    return clips, problems


# ---------------------------------------------------------------------------------------------------------------------
# Corpora as their owners publish them


def emodb(folder: Path) -> Iterator[Row | str]:
    """Berlin Database of Emotional Speech: ``03a01Fa.wav`` is speaker, sentence, emotion and take."""
    for wav in _sounds(folder):
        name = wav.stem
        emotion, sentence = EMODB_EMOTIONS.get(name[5:6]), EMODB_SENTENCES.get(name[2:5])
        if len(name) != 7 or not name[:2].isdigit() or emotion is None or sentence is None:
            yield f"{wav}: the name is not one of EmoDB"
            continue
        yield _row(wav, name[:2], name[2:5], sentence[0], emotion) | {"text_en": sentence[1]}


def ravdess(folder: Path) -> Iterator[Row | str]:
    """RAVDESS speech: ``03-01-06-01-02-01-12.wav`` is modality, channel, emotion, intensity, sentence, take, actor."""
    for wav in _sounds(folder):
        parts = wav.stem.split("-")
        if len(parts) != 7 or not all(part.isdigit() for part in parts) or not 1 <= int(parts[2]) <= 8:
            yield f"{wav}: the name is not one of RAVDESS"
        elif parts[1] != "01":
            yield f"{wav}: is sung"
        elif int(parts[4]) not in (1, 2):
            yield f"{wav}: has no known sentence"
        else:
            text = RAVDESS_SENTENCES[int(parts[4]) - 1]
            yield _row(wav, parts[6], parts[4], text, RAVDESS_EMOTIONS[int(parts[2]) - 1])


def crema_d(folder: Path) -> Iterator[Row | str]:
    """CREMA-D: ``1001_DFA_ANG_XX.wav`` is actor, sentence, emotion and intensity."""
    for wav in _sounds(folder):
        parts = wav.stem.split("_")
        if len(parts) != 4 or parts[1] not in CREMA_SENTENCES or parts[2] not in CREMA_EMOTIONS:
            yield f"{wav}: the name is not one of CREMA-D"
        else:
            yield _row(wav, parts[0], parts[1], CREMA_SENTENCES[parts[1]], CREMA_EMOTIONS[parts[2]])


def esd(folder: Path) -> Iterator[Row | str]:
    """Emotional Speech Dataset: ``0011/Angry/0011_000351.wav``, texts in ``0011/0011.txt`` (id, text, emotion)."""
    texts: dict[str, tuple[str, str]] = {}
    for table in sorted(folder.rglob("*.txt")):
        for line in table.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            parts = [part.strip() for part in line.split("\t")]
            if len(parts) == 3:
                texts[parts[0]] = (parts[1], parts[2])
    for wav in _sounds(folder):
        speaker, _, number = wav.stem.partition("_")
        text, said = texts.get(wav.stem, ("", ""))
        if not number.isdigit() or said not in ESD_EMOTIONS:
            yield f"{wav}: no text table names it with an emotion of ESD"
        else:
            sentence = f"{(int(number) - 1) % ESD_SENTENCES + 1:03d}"
            yield _row(wav, speaker, sentence, text, ESD_EMOTIONS[said])


READERS: dict[str, Callable[[Path], Iterator[Row | str]]] = {
    "emodb": emodb,
    "ravdess": ravdess,
    "crema-d": crema_d,
    "esd": esd,
}


def _sounds(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUNDS)
    if not found:
        raise ConfigError(folder, "holds no .wav or .flac file", "name the folder that the corpus was unpacked into")
    return found


def _row(wav: Path, speaker: str, sentence: str, text: str, emotion: str) -> Row:
    return dict(zip(COLUMNS, (str(wav), speaker, sentence, text, emotion)))


def write_table(corpus: str, folder: str | Path, output: str | Path) -> tuple[int, list[str]]:
    """Write the clip table of a corpus; gives the number of clips and what was left out.

    Arguments
    ---------
    corpus : str
        One of READERS.
    folder : str or Path
        Where it was unpacked.
    output : str or Path
        The CSV file; the paths in it start from its folder where they can.
    """
    found = list(READERS[corpus](Path(folder).resolve()))
    rows = [row for row in found if isinstance(row, dict)]
    problems = [row for row in found if isinstance(row, str)]
    output = Path(output).resolve()
    for row in rows:
        wav = Path(row["wav"])
        row["wav"] = str(wav.relative_to(output.parent)) if wav.is_relative_to(output.parent) else str(wav)
    if not rows:
        raise ConfigError(folder, f"holds no clip of {corpus}", problems[0])
    output.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(output, index=False)
    return len(rows), problems


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 good, 1 a fault that the user can mend, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        description="Make the table of clips that AffectProbe composes dialogues from, of a corpus as published.",
        epilog="example: python recipes/AffectProbe/clips.py ravdess /data/RAVDESS --output ravdess.csv",
    )
    parser.add_argument("corpus", choices=READERS, help="which corpus it is")
    parser.add_argument("folder", help="where it was unpacked")
    parser.add_argument("--output", required=True, help="the CSV file")
    chosen = parser.parse_args(arguments)
    try:
        number, problems = write_table(chosen.corpus, chosen.folder, chosen.output)
    except (ES4RError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(f"{number} clips in {chosen.output}, {len(problems)} files left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
