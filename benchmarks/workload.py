"""The workload es4r-base: fixed sizes and real dialogues, so that others can time their own code on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from es4r_toolkit.backends.building import build_whisper, train_tokenizer
from es4r_toolkit.backends.causal_lm import CausalLM
from es4r_toolkit.backends.whisper import WhisperSpeechEncoder
from es4r_toolkit.data.audio import load
from es4r_toolkit.data.batch import DialogueBatch
from es4r_toolkit.dialogue import LISTENER, SPEAKER, Dialogue, Turn
from es4r_toolkit.lobes import AffectiveDualAttention, ConvAdapter, MelDownsampler, SpeechQueryFusion
from es4r_toolkit.losses import response_cross_entropy, response_kl
from es4r_toolkit.pipeline import EmpathyPipeline
from es4r_toolkit.prompt import Prompt
from es4r_toolkit.stages.generation import EmpatheticGeneration
from es4r_toolkit.stages.understanding import EmpatheticUnderstanding

RATE = 16000
DEMO = Path(__file__).resolve().parents[2] / "shared" / "data" / "avamerg_demo" / "wav"
# The first five files of each conversation, in samples at 24 kHz.
FILES = {
    "dia20002utt0_51": 207550,
    "dia20002utt1_54": 196150,
    "dia20002utt2_51": 151150,
    "dia20002utt3_54": 207550,
    "dia20002utt4_51": 162550,
    "dia20004utt0_51": 106750,
    "dia20004utt1_54": 157750,
    "dia20004utt2_51": 176950,
    "dia20004utt3_54": 150550,
    "dia20004utt4_51": 132550,
}
FILE_RATE, TURNS, REPEATS = 24000, 5, 2


@dataclass(frozen=True)
class Sizes:
    """How large the model is and how many tokens it reads; the defaults are es4r-base."""

    encoder_width: int = 512
    encoder_layers: int = 6
    encoder_heads: int = 8
    mels: int = 80
    hidden: int = 512
    layers: int = 6
    heads: int = 8
    head_size: int = 64
    key_value_heads: int = 8
    intermediate: int = 1408
    vocabulary: int = 8192
    system_tokens: int = 24
    history_tokens: int = 160
    reply_tokens: int = 40


class FixedTokens:
    """Stands in for the prompt renderer: random tokens, as many as the sizes say."""

    def __init__(self, sizes: Sizes, tokenizer: object):
        self.sizes, self.tokenizer = sizes, tokenizer
        self.ids = torch.randint(sizes.vocabulary, (4096,), generator=torch.Generator().manual_seed(0)).tolist()

    def __call__(self, turns: Sequence[Turn]) -> Prompt:
        """The prompt of a dialogue, its history shared out evenly."""
        share = self.sizes.history_tokens // len(turns)
        history = tuple(tuple(self.ids[share * place : share * (place + 1)]) for place in range(len(turns)))
        return Prompt(tuple(self.ids[: self.sizes.system_tokens]), history, ())

    def reply(self, text: str) -> list[int]:
        """The tokens of a reply."""
        return self.ids[-self.sizes.reply_tokens :]


def spoken_dialogues() -> tuple[list[list[Tensor]], str]:
    """Four dialogues of five turns (samples,), and whether they are real: ``avamerg_demo`` or ``synthetic``."""
    paths = [DEMO / f"{name}.wav" for name in FILES]
    if all(path.is_file() for path in paths):
        turns, source = [load(path, RATE) for path in paths], "avamerg_demo"
    else:
        counts = [round(count * RATE / FILE_RATE) for count in FILES.values()]
        turns, source = [synthetic_speech(count, seed) for seed, count in enumerate(counts)], "synthetic"
    dialogues = [turns[start : start + TURNS] for start in range(0, len(turns), TURNS)]
    return dialogues * REPEATS, source


def synthetic_speech(samples: int, seed: int) -> Tensor:
    """A tone that swells four times a second, in noise (samples,)."""
    time = torch.arange(samples) / RATE
    tone = torch.sin(2 * torch.pi * (110 + 20 * seed) * time) * (0.2 + 0.1 * torch.sin(8 * torch.pi * time))
    return tone + 0.01 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def batch_of(dialogues: Sequence[Sequence[Tensor]]) -> DialogueBatch:
    """A batch of dialogues given as the waveforms of their turns."""
    held = []
    for index, turns in enumerate(dialogues):
        roles = [SPEAKER if place % 2 == 0 else LISTENER for place in range(len(turns))]
        history = tuple(Turn(role, "...") for role in roles)
        held.append(Dialogue(str(index), history, Turn(LISTENER, "...")))
    return DialogueBatch.of(held, dialogues)


def build_pipeline(folder: Path, sizes: Sizes, full_window: bool = False, dtype: str = "float32") -> EmpathyPipeline:
    """The preset ``paper`` on random weights, everything but the speech encoder (held in ``dtype``) trainable."""
    torch.manual_seed(0)
    build_whisper(folder / "encoder", sizes.encoder_width, sizes.encoder_layers, sizes.encoder_heads, sizes.mels)
    _build_llm(folder / "llm", sizes)
    llm = CausalLM(folder / "llm", freeze=False)
    understanding = EmpatheticUnderstanding(
        WhisperSpeechEncoder(folder / "encoder", full_window=full_window, dtype=dtype),
        MelDownsampler(sizes.mels),
        AffectiveDualAttention(sizes.mels, num_heads=16, residual=False, share_levels=True, recency=0),
        ConvAdapter(sizes.encoder_width, sizes.hidden),
    )
    fusion = SpeechQueryFusion(sizes.hidden, num_heads=sizes.heads, residual=False)
    generation = EmpatheticGeneration(llm, fusion, context=("fused",), match_embeddings=False)
    generation.render = FixedTokens(sizes, llm.tokenizer)
    return EmpathyPipeline(understanding, generation)


def train_step(pipeline: EmpathyPipeline, batch: DialogueBatch) -> None:
    """Cross-entropy and divergence, forward and backward, without the optimizer."""
    paths = pipeline(batch)
    loss = response_cross_entropy(paths.speech, paths.targets, paths.valid)
    (loss + response_kl(paths.speech, paths.text, paths.valid)).backward()
    for weight in pipeline.parameters():
        weight.grad = None


@torch.no_grad()
def first_token(pipeline: EmpathyPipeline, mels: Tensor, counts: Tensor, batch: DialogueBatch) -> Tensor:
    """From log-mels to the logits of the first token of each reply."""
    speech = pipeline.understanding.listen(mels, counts, batch.turns_per_dialogue)
    prompts = [pipeline.generation.render(dialogue.history) for dialogue in batch.dialogues]
    context = pipeline.generation.context(prompts, speech)
    return pipeline.generation.llm.logits(context.embeds, context.valid, context.adapted, last=1)


def _build_llm(folder: Path, sizes: Sizes) -> None:
    tokenizer = train_tokenizer(["speaker: hello there", "listener: hello"] * 50, 320)
    config = Qwen3Config(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_value_heads,
        head_dim=sizes.head_size,
        intermediate_size=sizes.intermediate,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model: nn.Module = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
