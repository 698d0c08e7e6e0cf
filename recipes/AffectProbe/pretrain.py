"""Pre-train the small backbones of the embedded default: a speech encoder and a language model, then freeze them.

They stand in for what a downloaded checkpoint knows. The encoder learns speech without labels, by filling in masked
stretches of log-mel and by telling which halves belong to one turn (ours). The downsampler, which nobody freezes, is
taught the second of these too, and training starts from there. The language model learns from text alone
to answer with empathy where the text ends in how each turn was spoken, "anger neutral calm" (ours); in ES4R's own
input nothing of the kind stands, and what the frozen model knows has to be reached through speech.
"""

from __future__ import annotations

import json
import logging
import shutil
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import draw_labels, plan_dialogue, read_corpus, reply_text
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from es4r_toolkit.backends.building import build_qwen3, build_whisper, train_tokenizer
from es4r_toolkit.backends.causal_lm import CausalLM
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.data.audio import load_turn
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.dialogue import SPEAKER, Dialogue, Turn
from es4r_toolkit.lobes import MelDownsampler, StatisticsPooling
from es4r_toolkit.losses import response_cross_entropy
from es4r_toolkit.masks import frame_counts, relative_lengths, valid_mask
from es4r_toolkit.metrics.slots import SlotTable, slot_accuracies
from es4r_toolkit.prompt import PromptRenderer

logger = logging.getLogger(__name__)

# What a token belongs to. What is given is read, never said: directions, and words that mean nothing here.
PADDING, GIVEN, WORDS, REPLY = range(4)


def pretrain(
    data_folder: str,
    corpus: str,
    folder: str,
    system: str,
    encoder: Mapping[str, int],
    downsampler: Mapping[str, Any],
    llm: Mapping[str, int],
    vocab_size: int,
    speech_steps: int,
    llm_steps: int,
    llm_rounds: int,
    seed: int,
) -> None:
    """Make ``encoder``, ``downsampler.safetensors`` and ``llm`` in a folder.

    Returns at once where they are there, made with the same settings.

    Arguments
    ---------
    data_folder : str
        A prepared corpus; only its training split is used.
    corpus : str
        The YAML of its sentences.
    folder : str
        Where they go.
    system : str
        The system message of the dialogues.
    encoder : mapping
        ``d_model``, ``layers``, ``heads``, ``n_mels``, ``positions``.
    downsampler : mapping
        Arguments of MelDownsampler.
    llm : mapping
        ``hidden_size``, ``layers``, ``heads``, ``intermediate_size``.
    vocab_size : int
        Of the tokenizer.
    speech_steps, llm_steps : int
        Optimizer steps.
    llm_rounds : int
        How often at most the language model takes its steps, until it answers what it is told.
    seed : int
    """
    settings = {key: value for key, value in locals().items() if key not in ("folder", "data_folder", "corpus")}
    settings["spoken"] = json.loads((Path(data_folder) / "corpus.json").read_text(encoding="utf-8"))["settings"]
    target, mark = Path(folder), Path(folder) / "backbones.json"
    if mark.is_file() and json.loads(mark.read_text())["settings"] == settings:
        return
    building = target.with_name(target.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    torch.manual_seed(seed)
    build_whisper(building / "encoder", **encoder)
    front = MelDownsampler(**downsampler)
    losses = {"speech": pretrain_speech(building / "encoder", front, data_folder, speech_steps, seed)}
    weights = {f"understanding.downsampler.{name}": weight for name, weight in front.state_dict().items()}
    save_file(weights, building / "downsampler.safetensors")
    config = read_corpus(corpus, settings["spoken"]["level"], settings["spoken"]["fold"])
    examples = text_dialogues(config, 12_000, seed)
    said = [text for one in examples[:3000] for text in (*(turn.text for turn in one.turns), one.reply)]
    tokenizer = train_tokenizer([*said, *_framing(config, system)], vocab_size)
    build_qwen3(building / "llm", tokenizer, **llm)
    table = SlotTable.read(Path(data_folder) / "slots.json")
    losses["llm"], knows = pretrain_llm(building / "llm", examples, table, system, llm_steps, llm_rounds, seed)
    record = {"settings": settings, "final_loss": losses, "llm_answers_directions": knows}
    (building / "backbones.json").write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)


def pretrain_speech(
    source: Path,
    downsampler: MelDownsampler,
    data_folder: str,
    steps: int,
    seed: int,
    batch_size: int = 64,
    contrast: float = 0.3,
    temperature: float = 0.1,
) -> float:
    """Teach the encoder and the downsampler speech, each by itself and without labels; returns the last loss.

    Two tasks: fill in masked log-mel frames (the encoder alone), and tell
    which two halves belong to one turn, among all turns of a few dialogues.
    Words differ between the halves and the speaker is the same in many
    turns, so that what tells is the manner of speaking (contrastive learning
    after Saeed et al., ICASSP 2021; the choice of negatives is ours).
    """
    model = WhisperSpeechEncoder(source, freeze=False)
    fill = nn.Linear(model.out_dim, 2 * model.n_mels)
    tell, tell_early = ManneredHalves(model.out_dim, temperature), ManneredHalves(model.n_mels, temperature)
    report = read_manifest(Path(data_folder) / "train.jsonl", check_audio=False)
    generator = np.random.default_rng(seed)
    groups = [list(nn.ModuleList(part).parameters()) for part in ((model, fill, tell), (downsampler, tell_early))]
    rates = (1e-3, 2e-3)
    optimizer = torch.optim.AdamW([{"params": group} for group in groups], betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps, pct_start=0.1)
    bar = tqdm(range(steps), desc="pre-training on speech", unit="step")
    for _ in bar:
        halves = _halves(report.dialogues, batch_size, generator, model.sample_rate)
        counts = torch.tensor([len(half) for half in halves])
        mels, lens = model.features(nn.utils.rnn.pad_sequence(halves, True), relative_lengths(counts))
        valid = valid_mask(frame_counts(lens, mels.shape[1]), mels.shape[1])
        masked = _spans(mels.shape[:2], generator) & valid
        states, state_lens = model.encode(mels.masked_fill(masked[..., None], 0.0), lens)
        guess = fill(states).unflatten(2, (2, model.n_mels)).flatten(1, 2)[:, : mels.shape[1]]
        filled = (guess - mels)[masked].square().mean()
        loss = filled + contrast * tell(states, state_lens) + tell_early(*downsampler(mels, lens))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(groups[0], 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    model.save(source)
    return loss.item()


def _halves(dialogues: Sequence[Dialogue], least: int, generator: np.random.Generator, rate: int) -> list[Tensor]:
    """First and second half of each turn of some random dialogues, at least so many turns where there are as many."""
    turns: list[Turn] = []
    for index in generator.permutation(len(dialogues)):
        turns += dialogues[index].history
        if len(turns) >= least:
            break
    waves = (load_turn(turn, rate) for turn in turns)
    return [half for wave in waves for half in (wave[: len(wave) // 2], wave[len(wave) // 2 :])]


class ManneredHalves(nn.Module):
    """How badly the two halves of each turn are found among those of the others, by their statistics."""

    def __init__(self, input_size: int, temperature: float, width: int = 64):
        super().__init__()
        self.pooling, self.projection, self.temperature = (
            StatisticsPooling(),
            nn.Linear(2 * input_size, width),
            temperature,
        )

    def forward(self, states: Tensor, lens: Tensor) -> Tensor:
        """States (2 N, L, D) of first and second halves in turn, relative lengths (2 N,) -> the loss, a scalar."""
        manner = nn.functional.normalize(self.projection(self.pooling(states, lens)), dim=1)
        likeness = manner[0::2] @ manner[1::2].T / self.temperature
        own = torch.arange(len(likeness))
        return (nn.functional.cross_entropy(likeness, own) + nn.functional.cross_entropy(likeness.T, own)) / 2


@dataclass(frozen=True)
class TextDialogue:
    """Turns, each with how it is spoken, the words that tell their topic, the reply and its slots."""

    turns: Sequence[Turn]
    subject: str
    reply: str
    slots: Mapping[str, str]


def text_dialogues(config: Mapping, number: int, seed: int) -> list[TextDialogue]:
    """Dialogues of the training split's sentences."""
    labels = draw_labels(config, "train", number, seed + 1)
    dialogues = []
    for index, slots in enumerate(labels):
        generator = np.random.default_rng((seed, 77, index))
        turns = plan_dialogue(config, "train", slots, generator)
        history = [Turn(turn["role"], turn["text"], emotion=turn["emotion"]) for turn in turns]
        # Of recordings the whole first sentence is the topic.
        named = (noun for noun in config["topics"][slots["topic"]] if noun in history[0].text)
        subject = next(named, history[0].text)
        dialogues.append(TextDialogue(history, subject, reply_text(config, slots, generator), slots))
    return dialogues


def pretrain_llm(
    source: Path,
    examples: Sequence[TextDialogue],
    table: SlotTable,
    system: str,
    steps: int,
    rounds: int,
    seed: int,
    enough: float = 0.95,
    kept_back: int = 200,
) -> tuple[float, dict[str, float]]:
    """Learn to answer from what is said and how; a round more where that is not learned yet.

    Whether a small model comes upon the comparison of turns in one round is
    a matter of chance, and a model that did not would hide whatever is heard.
    So it answers the examples kept back, told how each turn is spoken, and
    goes on unless it says the right value of every slot in a share ``enough``
    of them.

    Returns
    -------
    float
        The last loss of the replies (nats a token).
    dict of str to float
        Slot -> that share.
    """
    model = CausalLM(source, freeze=False)
    render = PromptRenderer(model.tokenizer, system)
    for number in range(rounds):
        loss = teach(model, render, examples[kept_back:], steps, seed + number)
        knows = _answers(model, render, examples[:kept_back], table)
        tqdm.write(f"told how each turn is spoken, it answers: {knows}", file=sys.stderr)
        if min(knows.values()) >= enough:
            break
    else:
        logger.warning("the language model has not learned to answer in %d rounds: %s", rounds, knows)
    model.save(source)
    return loss, knows


def _answers(
    model: CausalLM, render: PromptRenderer, examples: Sequence[TextDialogue], table: SlotTable, tokens: int = 48
) -> dict[str, float]:
    replies = []
    for start in range(0, len(examples), 50):
        told = []
        for one in examples[start : start + 50]:
            prompt = render(one.turns)
            directions = render.plain(" ".join(turn.emotion for turn in one.turns))
            told.append(torch.tensor([*prompt.prefix, *prompt.history, *directions, *prompt.suffix]))
        ids, valid = (
            nn.utils.rnn.pad_sequence(rows, True, padding_side="left")
            for rows in (told, [torch.ones(len(row), dtype=torch.bool) for row in told])
        )
        with torch.no_grad():
            replies += [render.text(reply) for reply in model.generate(model.embed(ids), valid, None, tokens)]
    return slot_accuracies(replies, [one.slots for one in examples], table)


def teach(
    model: CausalLM,
    render: PromptRenderer,
    examples: Sequence[TextDialogue],
    steps: int,
    seed: int,
    batch_size: int = 32,
    comparing: float = 0.5,
    directed: float = 0.8,
    unheard: float = 0.2,
    stirred: float = 0.5,
    foreign: int = 300,
    history_weight: float = 0.1,
) -> float:
    """One round; returns the last loss, of the replies (nats a token).

    For the first steps, a share ``comparing`` of all, each dialogue is one
    noun and how each turn is spoken: what a noun means and how turns compare
    is learned soonest where there is nothing else. Every other batch of the
    rest is such a one. In the others a share ``directed`` of the dialogues
    says how each turn is spoken; each token of the history is left out with
    probability ``unheard``, and the words of a turn change places with
    probability ``stirred``, lest the place of a word in the few sentences
    there are be learned in its stead. For the last third of the steps one
    batch in four has fewer dialogues and up to ``foreign`` random tokens
    among the words of each: whatever else is said, the reply keeps its form.
    The words of the history count less than those of the reply.
    """
    generator = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    bar = tqdm(range(steps), desc="pre-training the language model", unit="step")
    for step in bar:
        terse = step < comparing * steps or step % 2 == 0
        strange = not terse and step % 4 == 3 and step >= steps * 2 / 3
        chosen = generator.choice(len(examples), batch_size // 4 if strange else batch_size)
        rows = []
        for one in (examples[index] for index in chosen):
            if terse:
                rows.append(_row(render, [Turn(SPEAKER, one.subject)], one.turns, one.reply, generator))
                continue
            said = _stir(one.turns, stirred, generator)
            directions = one.turns if generator.random() < directed else ()
            number = int(generator.integers(foreign + 1)) if strange else 0
            rows.append(_row(render, said, directions, one.reply, generator, unheard, number))
        ids, parts = (nn.utils.rnn.pad_sequence([row[part] for row in rows], True) for part in (0, 1))
        logits = model.logits(model.embed(ids[:, :-1]), parts[:, :-1] > PADDING, None, last=ids.shape[1] - 1)
        targets, parts = ids[:, 1:], parts[:, 1:]
        replies = response_cross_entropy(logits, targets, parts == REPLY)
        loss = replies + history_weight * response_cross_entropy(logits, targets, parts == WORDS)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{replies.item():.3f}")
    return replies.item()


def _framing(config: Mapping, system: str) -> list[str]:
    """What stands around the words, often enough to be merged, and every printable character once."""
    directions = " ".join((*config["affects"], "neutral"))
    return [system, "speaker: hello", "listener: hello", "user assistant system", directions] * 200 + [
        *string.printable.strip()
    ]


def _stir(turns: Sequence[Turn], share: float, generator: np.random.Generator) -> list[Turn]:
    """Put the words of some turns in another order."""
    return [
        replace(turn, text=" ".join(generator.permutation(turn.text.split()))) if generator.random() < share else turn
        for turn in turns
    ]


def _row(
    render: PromptRenderer,
    said: Sequence[Turn],
    directed: Sequence[Turn],
    reply: str,
    generator: np.random.Generator,
    unheard: float = 0.0,
    foreign: int = 0,
) -> tuple[Tensor, Tensor]:
    """Token ids (L,) of a dialogue and what each belongs to (L,); directions stand where speech would, behind text."""
    prompt = render(said)
    history = [(token, WORDS) for token in prompt.history if generator.random() >= unheard]
    for token in generator.integers(render.tokenizer.vocab_size, size=foreign):
        history.insert(int(generator.integers(len(history) + 1)), (int(token), GIVEN))
    directions = render.plain(" ".join(turn.emotion for turn in directed)) if directed else []
    labelled = [
        *((token, WORDS) for token in prompt.prefix),
        *history,
        *((token, GIVEN) for token in directions),
        *((token, WORDS) for token in prompt.suffix),
        *((token, REPLY) for token in render.reply(reply)),
    ]
    ids, parts = torch.tensor(labelled).T
    return ids, parts


def _spans(shape: tuple[int, int], generator: np.random.Generator, share: float = 0.3, width: int = 10) -> Tensor:
    """A mask (N, T) of random spans of ``width`` frames that covers about ``share`` of them."""
    starts = torch.from_numpy(generator.random(tuple(shape)) < share / width).float()
    return nn.functional.max_pool1d(starts[:, None], width, stride=1, padding=width // 2)[:, 0, : shape[1]] > 0
