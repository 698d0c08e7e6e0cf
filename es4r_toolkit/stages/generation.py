"""Stage 2, empathetic generation: speech asks the text history, and the language model answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from es4r_toolkit.errors import ContextError, require
from es4r_toolkit.masks import frame_counts, relative_lengths
from es4r_toolkit.prompt import SYSTEM, Prompt, PromptRenderer
from es4r_toolkit.protocols import LanguageModel
from es4r_toolkit.stages.understanding import SpeechStates

logger = logging.getLogger(__name__)

PARTS = ("text", "fused")
LONGEST = 128  # tokens of a reply


@dataclass(frozen=True)
class Context:
    """What the language model sees before the reply; left-padded.

    Attributes
    ----------
    embeds : Tensor (B, P, D)
    valid : Tensor (B, P) of bool
    adapted : Tensor (B, P) of bool
        Where LoRA is active.
    attention : Tensor (B, L, T) or None
        Weights of speech positions over the text history, where asked for.
    heard : SpeechStates or None
        What was heard, before it met the text; None where the layout holds no speech.
    """

    embeds: Tensor
    valid: Tensor
    adapted: Tensor
    attention: Tensor | None = None
    heard: SpeechStates | None = None


class Words(NamedTuple):
    """Embeddings (tokens, D) of each prompt's three parts."""

    prefixes: Sequence[Tensor]
    histories: Sequence[Tensor]
    suffixes: Sequence[Tensor]


class Written(NamedTuple):
    """A reply, and whether it reached ``max_new_tokens`` without a stop token."""

    text: str
    cut_off: bool


class EmpatheticGeneration(nn.Module):
    """E_fused = CrossAttn(E_spch, E_text), placed before the reply in a chat prompt (ES4R Sec. 3.2).

    Arguments
    ---------
    llm : LanguageModel
    fusion : nn.Module or None
        SpeechQueryFusion or another of its signature; None leaves the speech as it is.
    context : sequence of str
        What stands in the prompt, in order: ``[fused]`` is the paper's,
        ``[text, fused]`` and ``[text]`` are ours.
    lora_scope : str
        LoRA is active at ``speech`` positions (the paper's partial LoRA) or
        over the whole ``context`` (for a baseline without speech).
    system : str
        The system message.
    max_new_tokens : int or None
        The longest reply; None takes what the language model's own generation
        config says, 128 where it says nothing.
    match_embeddings : bool
        Bring speech positions to the root mean square of the language model's
        token embeddings, by a learned factor that starts there (ours). What
        an adapter gives by itself is many times larger, and what the first
        layers add to it then goes under.
    """

    def __init__(
        self,
        llm: LanguageModel,
        fusion: nn.Module | None = None,
        context: Sequence[str] = ("text", "fused"),
        lora_scope: str = "speech",
        system: str = SYSTEM,
        max_new_tokens: int | None = LONGEST,
        match_embeddings: bool = True,
    ):
        super().__init__()
        fit = len(context) > 0 and len(set(context)) == len(context) and set(context) <= set(PARTS)
        require(fit, "context", list(context), f"must hold each of {list(PARTS)} at most once, and one at least")
        require(lora_scope in ("speech", "context"), "lora_scope", lora_scope, "must be speech or context")
        self.llm, self.fusion = llm, fusion
        self.layout, self.lora_scope = tuple(context), lora_scope
        self.max_new_tokens = max_new_tokens or getattr(llm, "max_new_tokens", None) or LONGEST
        self.render = PromptRenderer(llm.tokenizer, system)
        self.loudness = None
        if match_embeddings and self.hears:
            with torch.no_grad():
                self.loudness = nn.Parameter(llm.embedding_table.float().square().mean().sqrt())

    @property
    def hears(self) -> bool:
        """Whether the context holds speech."""
        return "fused" in self.layout

    def context(
        self, prompts: Sequence[Prompt], speech: SpeechStates | None, return_attention: bool = False
    ) -> Context:
        """Build what the language model sees, for training and generation alike.

        Arguments
        ---------
        prompts : sequence of Prompt
            B of them.
        speech : SpeechStates or None
            None where the layout holds no speech.
        return_attention : bool
            Keep the fusion's attention weights.
        """
        words = self._words(prompts)
        fused: Sequence[Tensor] = []
        attention = None
        if self.hears:
            states, lens = speech.states, speech.lens
            if self.fusion is not None:
                text_counts = torch.tensor([len(text) for text in words.histories], device=states.device)
                text = pad_sequence(words.histories, batch_first=True).to(states.dtype)
                text_lens = relative_lengths(text_counts, text.shape[1])
                if return_attention:
                    states, attention = self.fusion(states, text, lens, text_lens, return_weights=True)
                else:
                    states = self.fusion(states, text, lens, text_lens)
            if self.loudness is not None:
                states = self.loudness * functional.rms_norm(states, states.shape[-1:])
            fused = [row[:count] for row, count in zip(states, frame_counts(lens, states.shape[1]).tolist())]
        context = self._lay_out(words, self.layout, fused)
        return replace(context, attention=attention, heard=speech if self.hears else None)

    def text_context(self, prompts: Sequence[Prompt]) -> Context:
        """The text path, E_text without speech and without LoRA: the teacher of the KL term."""
        bare = self._lay_out(self._words(prompts), ("text",), [])
        return replace(bare, adapted=torch.zeros_like(bare.valid))

    def reply_logits(self, context: Context, targets: Tensor, targets_valid: Tensor) -> Tensor:
        """Logits of each reply token given the context and the tokens before it.

        Arguments
        ---------
        context : Context
        targets : Tensor (B, R) of int
            Right-padded.
        targets_valid : Tensor (B, R) of bool

        Returns
        -------
        Tensor (B, R, V)
        """
        embeds = torch.cat([context.embeds, self.llm.embed(targets[:, :-1]).to(context.embeds.dtype)], dim=1)
        valid = torch.cat([context.valid, targets_valid[:, :-1]], dim=1)
        adapted = torch.cat([context.adapted, torch.zeros_like(targets_valid[:, :-1])], dim=1)
        return self.llm.logits(embeds, valid, adapted, last=targets.shape[1])

    def generate(self, context: Context, **options: Any) -> list[str]:
        """The texts that ``write`` writes."""
        return [reply.text for reply in self.write(context, **options)]

    def write(self, context: Context, **options: Any) -> list[Written]:
        """Write a reply for each context; options are the language model's (``temperature``, ``top_p``).

        One that is not at its end after ``max_new_tokens`` is cut off there, and a warning in the log counts it.
        """
        replies = self.llm.generate(context.embeds, context.valid, context.adapted, self.max_new_tokens, **options)
        self._tell_of_cut([len(reply) for reply in replies])
        return [Written(self.render.text(reply), self.cuts_off(len(reply))) for reply in replies]

    def stream(self, context: Context, **options: Any) -> Iterator[int]:
        """Write one reply, token id by token id; options are as for ``generate``, and ``cache``.

        Where the language model gives a ``prefix_cache()``, that object as ``cache`` spares it what this context and
        the one before begin alike with.
        """
        tokens = self.llm.stream(context.embeds, context.valid, context.adapted, self.max_new_tokens, **options)
        number = 0
        for token in tokens:
            number += 1
            yield token
        self._tell_of_cut([number])

    def cuts_off(self, length: int) -> bool:
        """Whether a reply of this many tokens was cut off; the token that ends one is not counted."""
        return length >= self.max_new_tokens

    def _tell_of_cut(self, lengths: Sequence[int]) -> None:
        cut = sum(map(self.cuts_off, lengths))
        if cut:
            logger.warning("%d of %d replies are cut off at max_new_tokens, %d", cut, len(lengths), self.max_new_tokens)

    def _words(self, prompts: Sequence[Prompt]) -> Words:
        # One look into the table: where it is trained, each look costs a gradient of its size.
        sequences = [ids for prompt in prompts for ids in (prompt.prefix, prompt.history, prompt.suffix)]
        ids = torch.tensor(list(chain.from_iterable(sequences)), device=next(self.llm.parameters()).device)
        rows = self.llm.embed(ids).split([len(sequence) for sequence in sequences])
        return Words(rows[0::3], rows[1::3], rows[2::3])

    def _lay_out(self, words: Words, layout: Sequence[str], fused: Sequence[Tensor]) -> Context:
        rows, adapted = [], []
        for index, (prefix, text, suffix) in enumerate(zip(*words)):
            parts = [text if part == "text" else fused[index] for part in layout]
            row = torch.cat([prefix, *(part.to(prefix.dtype) for part in parts), suffix])
            room = self.llm.max_positions
            if room is not None and len(row) + self.max_new_tokens > room:
                need = f"{len(row)} positions and {self.max_new_tokens} for the reply"
                problem = f"{need} do not fit the language model's {room}"
                raise ContextError(f"dialogue {index}", problem, "shorten the dialogue")
            scope = torch.zeros(len(row), dtype=torch.bool, device=row.device)
            start = len(prefix)
            for part, content in zip(layout, parts):
                scope[start : start + len(content)] = part == "fused" or self.lora_scope == "context"
                start += len(content)
            rows.append(row)
            adapted.append(scope)
        valid = [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
        return Context(*(pad_sequence(part, True, padding_side="left") for part in (rows, valid, adapted)))
