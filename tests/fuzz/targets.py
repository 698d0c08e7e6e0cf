"""What is fuzzed: four borders where data of strangers comes in, each a function of bytes that raises where it breaks.

A target takes any bytes. What it does with them must end in an error of the project's family that says what is wrong
and how to mend it, or in an answer that holds what the border promises; anything else is a finding.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import shutil
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from chat_tokenizers import TOKENIZERS

from es4r_toolkit.data.audio import DEFAULT_LIMITS, decode, load
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.data.tables import TableOptions
from es4r_toolkit.dialogue import SPEAKER, Turn
from es4r_toolkit.errors import AudioError, ConfigError, DialogueError, ES4RError
from es4r_toolkit.hparams import build, localize
from es4r_toolkit.prompt import PromptRenderer
from es4r_toolkit.trust import refuse_foreign_tags

RATE = 16000
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".raw", ".au", "")
MANIFESTS = (".jsonl", ".json", ".csv", ".tsv")
TABLES = (
    TableOptions(),
    TableOptions(samples="last"),
    TableOptions(columns={"text": "utt", "wav": "file"}, roles={"A": "speaker", "B": "listener"}),
)
# What marks of control are made of, so that the fuzzer need not find their letters one by one.
MARKS = (
    *("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<start_of_turn>", "<bos>"),
    *("</s>", "<s>", "<unk>", "<think>", "||", "||say||", "[[sys]]", "END", "aaa", "a b", "^", "<tag>", "<|", "|>"),
    *("im_", "end", "start", "<", ">", "|", "/", "＜", "＞", "｜", "\u200b", "\u00ad", "\u0301", " ", "\n", "\0", "▁"),
    *("\u2028", "\u202e", "user", "system", "listener: ", "<0x0A>", "Ａ", "ﬁ", "🙂"),
)


def audio(data: bytes) -> None:
    """A recording: the first byte chooses the extension, the rest is the file."""
    path = _folder() / f"sound{SOUNDS[data[0] % len(SOUNDS)] if data else ''}"
    path.write_bytes(data[1:])
    try:
        with _silent_decoders():
            samples, rate = decode(path)
    except AudioError as error:
        _check_named(error)
        return
    assert DEFAULT_LIMITS.min_sample_rate <= rate <= DEFAULT_LIMITS.max_sample_rate
    assert 0 < len(samples) <= DEFAULT_LIMITS.max_samples
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= DEFAULT_LIMITS.max_peak
    if len(samples) <= RATE:
        with _silent_decoders():
            waveform = load(path, RATE)
        assert len(waveform) == math.ceil(len(samples) * RATE / rate)
        assert torch.isfinite(waveform).all()


@contextlib.contextmanager
def _silent_decoders() -> Iterator[None]:
    # mpg123 writes to the process's own standard error, a line or more for nearly every input.
    shown = os.dup(2)
    os.dup2(_nowhere(), 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)


@cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def manifest(data: bytes) -> None:
    """A manifest: the first byte chooses extension and options, the rest is the file."""
    choice, content = data[:1] or b"\0", data[1:]
    path = _folder() / f"manifest{MANIFESTS[choice[0] % 4]}"
    path.write_bytes(content)
    options = {"need_text": bool(choice[0] & 4), "need_response": bool(choice[0] & 8), "decode": bool(choice[0] & 16)}
    try:
        report = read_manifest(path, table=TABLES[choice[0] // 32 % 3], split="train", **options)
    except DialogueError as error:
        _check_named(error)
        return
    assert len(report.dialogues) == len(report.records)
    assert len(report.rejected) == len(report.refused)
    assert len({dialogue.id for dialogue in report.dialogues}) == len(report.dialogues)
    if path.suffix == ".jsonl":
        lines = [line for line in content.removeprefix(b"\xef\xbb\xbf").decode().split("\n") if line.strip()]
        assert len(report.dialogues) + len(report.rejected) + report.elsewhere == len(lines)
    for rejection in report.rejected:
        assert rejection.field
        assert rejection.problem
        assert rejection.mend
    for dialogue in report.dialogues:
        assert any(turn.is_speaker for turn in dialogue.history)
        for turn in dialogue.history:
            turn.text.encode()
            assert 0 <= turn.start < (turn.stop or math.inf)


def prompt(data: bytes) -> None:
    """What somebody says: each byte below the number of marks is a mark, the others are letters of UTF-8."""
    choice, pieces = data[:1] or b"\0", bytearray()
    for byte in data[1:]:
        pieces += MARKS[byte].encode() if byte < len(MARKS) else bytes([byte])
    said = pieces.decode("utf-8", "surrogateescape" if choice[0] & 128 else "replace")
    render, control = _renderers()[choice[0] % len(TOKENIZERS)]
    try:
        ids = render((Turn(SPEAKER, said), Turn(SPEAKER, "And I.")))
    except DialogueError as error:
        _check_named(error)
        assert any("\ud800" <= letter <= "\udfff" for letter in said)
        return
    alone = render((Turn(SPEAKER, "x"), Turn(SPEAKER, "And I.")))
    assert (ids.prefix, ids.turns[1], ids.suffix) == (alone.prefix, alone.turns[1], alone.suffix)
    assert not control & set(ids.history)
    assert not control & set(render.plain(said))
    assert not control & set(render.reply(said)[:-1])


def yaml(data: bytes) -> None:
    """The YAML of a model folder: what is let through is built, and must not touch the world."""
    text = data.decode("utf-8", "replace")
    try:
        refuse_foreign_tags(text, "model.yaml")
        # Back ends would look for their checkpoints.
        if "backends" not in text:
            with _nothing_touched():
                build(localize(text, "/model"))
    except ConfigError as error:
        _check_named(error)


def _check_named(error: ES4RError) -> None:
    assert error.item
    assert error.problem
    assert error.mend
    assert len(str(error)) < 5000


@cache
def _folder() -> Path:
    """Where files are written, in memory if possible, with recordings that manifests may name."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="es4r-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, np.zeros(RATE), RATE)
    return folder


@cache
def _renderers() -> list[tuple[PromptRenderer, set[int]]]:
    tokenizers = [make() for make in TOKENIZERS.values()]
    return [(PromptRenderer(tokenizer), control_ids(tokenizer)) for tokenizer in tokenizers]


def control_ids(tokenizer: object) -> set[int]:
    """The ids that steer a model: all that were added to its vocabulary but runs of blanks and the unknown one."""
    added = tokenizer.added_tokens_decoder.items()
    return {index for index, token in added if token.content.strip(" \n▁")} - {tokenizer.unk_token_id}


FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "subprocess.", "socket.")
_watching: list[str] = []


def _watch(event: str, arguments: tuple) -> None:
    written = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if _watching and (written or event.startswith(FORBIDDEN)):
        raise AssertionError(f"{event} {arguments}")


@contextlib.contextmanager
def _nothing_touched() -> Iterator[None]:
    """No process, socket or file is opened for writing within."""
    if not hasattr(_watch, "set"):
        sys.addaudithook(_watch)
        _watch.set = True
    _watching.append("now")
    try:
        yield
    finally:
        _watching.pop()


TARGETS: dict[str, Callable[[bytes], None]] = {one.__name__: one for one in (audio, manifest, prompt, yaml)}


# -- seeds ------------------------------------------------------------------------------------------------------------


def seeds(target: str) -> list[bytes]:
    """Inputs from which the fuzzer starts, made by code."""
    return {"audio": _sounds, "manifest": _manifests, "prompt": _sayings, "yaml": _yamls}[target]()


def _sounds() -> list[bytes]:
    tone = 0.4 * np.sin(np.arange(600) / 5)
    found = []
    for place, name in enumerate(SOUNDS[:5]):
        path = _folder() / f"seed{name}"
        subtypes = ("PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")
        for subtype in subtypes if name == ".wav" else (None,):
            soundfile.write(path, tone, 8000, subtype=subtype)
            found.append(bytes([place]) + path.read_bytes())
        soundfile.write(path, np.stack([tone[:300], tone[300:]], axis=1), 44100)
        found.append(bytes([place]) + path.read_bytes())
    with wave.open(str(_folder() / "seed.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(64))
    found.append(b"\0" + (_folder() / "seed.wav").read_bytes())
    return found


def _manifests() -> list[bytes]:
    turn = {"index": 0, "role": "speaker", "utterance": "I failed.", "audio_path": "a.wav", "start": 0.1, "stop": 0.5}
    reply = {"index": 1, "role": "listener", "utterance": "Oh no.", "emotion": "sad", "speaker_id": "2"}
    one = {"conversation_id": "7", "turn_id": 1, "dialogue_history": [turn], "response": reply, "split": "train"}
    more = {**one, "turn_id": 2, "slots": {"affect": "sad"}, "speaker_emotion": "afraid"}
    lines = "\n".join(json.dumps(value) for value in (one, more, {**one, "conversation_id": 8})).encode()
    rows = b"dialogue_id,role,wav,turn,text,start,stop,emotion,speaker_id,split\n"
    rows += b'a,speaker,a.wav,1,"I failed, today.",0.1,0.5,sad,x,train\na,listener,b.wav,2,Oh no.,,,,y,train\n'
    mapped = b"dialogue_id;role;file;utt\n1;A;a.wav;I failed.\n1;B;b.wav;Oh.\n1;A;a.wav;Yes\n1;B;;Hm\n"
    contents = [lines, json.dumps([one, more]).encode(), rows, rows.replace(b",", b"\t")]
    bare = [bytes([choice]) + content for choice, content in enumerate(contents)]
    full = [bytes([choice | 28]) + content for choice, content in enumerate(contents)]
    return [*bare, *full, bytes([2 | 64]) + mapped, b"\0\xef\xbb\xbf" + lines]


def _sayings() -> list[bytes]:
    marks = bytes(range(len(MARKS)))
    return [bytes([choice]) + marks for choice in range(len(TOKENIZERS))] + [b"\x80\xed\xa0\x80", b"\0hello there"]


def _yamls() -> list[bytes]:
    model = Path(__file__).parents[2] / "es4r_toolkit" / "assets" / "affectprobe-small" / "model.yaml"
    return [
        model.read_bytes(),
        b"fuser: !new:es4r_toolkit.lobes.StyleFuser\n    silence: 0.5\nvalues: [1, 2.5, null, true, text]\n",
        b"lobe: &lobe !new:es4r_toolkit.lobes.MelDownsampler\n    input_size: 16\n    strides: [2, 2]\n",
        b"a: &a !new:es4r_toolkit.lobes.StyleFuser\nb: !apply:getattr [*a, n_mels]\nc: !ref <a>\n",
        b"a: !apply:os.getcwd\nb: !name:os.system\nc: !include:/etc/hostname\nd: !copy <a>\n",
        b"%TAG !e! !apply:os.\n---\na: !e!getcwd\n",
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\nd: {<<: {e: 1}}\n",
        b"a: !!python/object/apply:os.getcwd []\n? [k]\n: v\nt: 2001-12-14t21:59:43.10-05:00\n",
    ]
