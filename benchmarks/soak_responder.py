"""Thousands of dialogues through one responder: what grows, what is left behind, and whether it still says the same.

python benchmarks/soak_responder.py --dialogues 2000 prints JSON. Each dialogue is spoken anew by espeak-ng, so that
nothing of it was heard before, and is answered whole, as a stream, as a stream that is broken off, or in a
conversation. The first of all is asked again at the end. Exits with 1 where something leaked or changed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import json
import os
import random
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from tqdm import tqdm

from es4r_toolkit.backends.espeak import EspeakSynthesizer
from es4r_toolkit.data.audio import save, waveform_of
from es4r_toolkit.dialogue import LISTENER, SPEAKER, Dialogue, Turn
from es4r_toolkit.inference import EmpathyResponder, Response, TextDelta

WORDS = (
    "I lost my job this morning.",
    "Nobody at the station could tell me when the train would come.",
    "They moved the exam again, and I had studied all night for it.",
    "We won, and everybody came to the garden and sang.",
    "I keep thinking about the letter she sent.",
)
ANSWERS = ("Do you want to talk about it?", "I am listening.", "Tell me more.")
VOICES = ("en-us", "en-us+f3", "en-us+m3")
GROWTH = 0.03  # of memory, from the end of the warm-up
SAMPLES = 20
WAYS = ("respond", "stream", "cancel", "converse")


class Speaker:
    """Speaks one dialogue after another into the same few files, none like another."""

    def __init__(self, folder: Path, sample_rate: int):
        self.folder, self.sample_rate = folder, sample_rate
        self.voices = [EspeakSynthesizer(voice) for voice in VOICES]

    def __call__(self, number: int) -> Dialogue:
        draw = random.Random(number)
        turns = []
        for place in range(2 * draw.randint(0, 2) + 1):
            role = LISTENER if place % 2 else SPEAKER
            words = draw.choice(ANSWERS if place % 2 else WORDS)
            voice = draw.choice(self.voices)
            waveform = waveform_of(voice.synthesize(words), voice.sample_rate, self.sample_rate)
            path = self.folder / f"{place}.wav"
            save(path, waveform * draw.uniform(0.2, 0.9), self.sample_rate)
            turns.append(Turn(role, words, path))
        return Dialogue(f"dialogue {number}", tuple(turns))


def answer(responder: EmpathyResponder, dialogue: Dialogue, way: str) -> Response | None:
    """Ask in one of the ways; None where the reply was broken off."""
    if way == "respond":
        return responder.respond(dialogue)
    if way == "stream":
        return list(responder.stream(dialogue))[-1].response
    if way == "cancel":
        with responder.stream(dialogue) as events:
            next(event for event in events if isinstance(event, TextDelta))
        return None
    talk = responder.conversation()
    for turn in dialogue.history[:-1]:
        talk.listen(turn)
    return talk.respond(dialogue.history[-1])


def resident() -> int:
    """Memory of the process (bytes), with what malloc keeps of it for later."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def held() -> dict[str, int]:
    """Open files, threads, children, and memory (bytes) before and after what is free is given back."""
    gc.collect()
    before = resident()
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
    tasks = Path("/proc/self/task").iterdir()
    return {
        "resident": before,
        "memory": resident(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": sum(len((task / "children").read_text().split()) for task in tasks),
    }


def soak(dialogues: int, warm_up: int, progress: bool = True) -> dict[str, object]:
    """Run it; says of each figure what it was after the warm-up and at the end, and what is wrong."""
    responder = EmpathyResponder.from_hparams()
    with tempfile.TemporaryDirectory() as folder:
        speak = Speaker(Path(folder), responder.sample_rate)
        first = answer(responder, speak(0), "respond")
        course, answered, cut = [], 0, 0
        every = max(1, (dialogues - warm_up) // SAMPLES)
        for number, way in tqdm(zip(range(dialogues), itertools.cycle(WAYS)), total=dialogues, disable=not progress):
            response = answer(responder, speak(number + 1), way)
            answered, cut = answered + (response is not None), cut + (response is None)
            if number + 1 >= warm_up and (number + 1 - warm_up) % every == 0:
                course.append({"dialogues": number + 1, **held()})
        last = answer(EmpathyResponder(responder.pipeline), speak(0), "respond")
    return {
        "dialogues": dialogues,
        "answered": answered,
        "broken_off": cut,
        "course": course,
        "growth": {name: round(course[-1][name] / course[0][name] - 1, 4) for name in ("resident", "memory")},
        "wrong": list(_wrong(course, first, last)),
    }


def _wrong(course: list[dict[str, int]], first: Response, last: Response) -> Iterator[str]:
    start, end = course[0], course[-1]
    if end["memory"] > (1 + GROWTH) * start["memory"]:
        yield f"memory grew from {start['memory']} to {end['memory']} bytes"
    for name in ("files", "threads", "children"):
        if end[name] > start[name]:
            yield f"{name} grew from {start[name]} to {end[name]}"
    if (first.text, first.plan.strategy.name) != (last.text, last.plan.strategy.name):
        yield f"the first dialogue is answered by {last.text!r} now, and was by {first.text!r}"
    if not torch.equal(first.waveform, last.waveform):
        yield "the first dialogue's answer sounds otherwise now"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dialogues", type=int, default=2000)
    parser.add_argument("--warm-up", type=int, default=400, help="dialogues before the first look")
    options = parser.parse_args()
    found = soak(options.dialogues, options.warm_up)
    print(json.dumps(found, indent=2))
    sys.exit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
