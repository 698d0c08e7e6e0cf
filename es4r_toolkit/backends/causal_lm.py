"""CausalLM: any Hugging Face causal language model with a chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from es4r_toolkit.backends.attention import attend_here
from es4r_toolkit.backends.checkpoints import check_sizes, load_weights, naming
from es4r_toolkit.backends.last_layer import read_last_only
from es4r_toolkit.backends.partial_lora import PartialLoraLinear, PositionMask, add_partial_lora
from es4r_toolkit.errors import BackendError, require

DTYPES = ("float32", "bfloat16", "float16")


class CausalLM(nn.Module):
    """A frozen language model that reads embeddings, with partial LoRA if asked for.

    Arguments
    ---------
    source : str or Path
        Hub name or local folder (safetensors).
    lora : mapping, optional
        Arguments of ``add_partial_lora``; None adds none.
    freeze : bool
        Whether the model's own weights stay as they are.
    dtype : str
        ``float32``, ``bfloat16`` or ``float16``.
    gradient_checkpointing : bool
        In training, keep only what goes into each layer and compute the rest
        again in the backward pass: less memory for about a third more time.
    revision : str, optional
        Branch, tag or commit on the hub.
    hidden_dim, num_heads : int, optional
        What the YAML reckons with; checked against the checkpoint.

    Raises
    ------
    BackendError
        If the source is missing, has no chat template or is of another size.
    """

    def __init__(
        self,
        source: str | Path,
        lora: Mapping[str, Any] | None = None,
        freeze: bool = True,
        dtype: str = "float32",
        gradient_checkpointing: bool = False,
        revision: str | None = None,
        hidden_dim: int | None = None,
        num_heads: int | None = None,
    ):
        super().__init__()
        require(dtype in DTYPES, "dtype", dtype, f"must be one of {', '.join(DTYPES)}")
        # A checkpoint's own Python is never run.
        options = {"dtype": getattr(torch, dtype), "revision": revision, "trust_remote_code": False}
        self.model = load_weights(AutoModelForCausalLM, source, **options).requires_grad_(not freeze)
        attend_here(self.model)
        with naming(source):
            self.tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
        if not self.tokenizer.chat_template:
            raise BackendError(source, "its tokenizer has no chat template", "use an instruction-tuned model")
        self.positions = add_partial_lora(self.model, **lora) if lora is not None else PositionMask()
        read_last_only(self.model, self.positions)
        if gradient_checkpointing:
            for layer in self.model.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    layer.forward = self._computed_again(layer.forward)
        self.freeze, config = freeze, self.model.config
        self.hidden_dim, self.num_heads = config.hidden_size, config.num_attention_heads
        self.max_positions = getattr(config, "max_position_embeddings", None)
        check_sizes(source, self, hidden_dim=hidden_dim, num_heads=num_heads)
        stops = self.model.generation_config.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        self.stop_ids = sorted({stop for stop in [*stops, self.tokenizer.eos_token_id] if stop is not None})

    @property
    def embedding_table(self) -> Tensor:
        """The token embeddings (vocabulary, hidden_dim)."""
        return self.model.get_input_embeddings().weight

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (...,) -> embeddings (..., hidden_dim)."""
        return self.model.get_input_embeddings()(ids)

    def logits(self, embeds: Tensor, valid: Tensor, adapted: Tensor | None, last: int) -> Tensor:
        """Logits of the last positions only.

        Arguments
        ---------
        embeds : Tensor (B, P, hidden_dim)
        valid : Tensor (B, P) of bool
            Padding may stand on either side.
        adapted : Tensor (B, P) of bool, or None
            Where LoRA is active.
        last : int
            How many positions, counted from the end.

        Returns
        -------
        Tensor (B, last, vocabulary)
        """
        with self.positions.set_to(adapted, last):
            return self.model(
                inputs_embeds=embeds,
                attention_mask=valid.long(),
                position_ids=position_ids(valid),
                logits_to_keep=last,
                use_cache=False,
            ).logits

    @torch.no_grad()
    def generate(
        self, embeds: Tensor, valid: Tensor, adapted: Tensor | None, max_new_tokens: int, **options: Any
    ) -> list[list[int]]:
        """Continue each row of a left-padded batch.

        Arguments
        ---------
        embeds, valid, adapted
            As for ``logits``; every row ends in a valid position.
        max_new_tokens : int
        options
            ``temperature`` and ``top_p`` for sampling; greedy where left out.

        Returns
        -------
        list of list of int
            New token ids of each row, one at least, without the stop token.
        """
        replies: list[list[int]] = [[] for _ in embeds]
        open_rows = set(range(len(embeds)))
        for tokens in self._decode(embeds, valid, adapted, max_new_tokens, **options):
            for row, token in enumerate(tokens):
                if row in open_rows and token in self.stop_ids:
                    open_rows.remove(row)
                elif row in open_rows:
                    replies[row].append(token)
            if not open_rows:
                break
        return replies

    def stream(
        self, embeds: Tensor, valid: Tensor, adapted: Tensor | None, max_new_tokens: int, **options: Any
    ) -> Iterator[int]:
        """Continue one row, yielding token ids as they come, without the stop token."""
        for (token,) in self._decode(embeds, valid, adapted, max_new_tokens, **options):
            if token in self.stop_ids:
                return
            yield token

    def _decode(
        self,
        embeds: Tensor,
        valid: Tensor,
        adapted: Tensor | None,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
    ) -> Iterator[list[int]]:
        # Our own loop, since generate() cannot tell prefill, where LoRA is on, from new tokens, where it is off.
        cache = DynamicCache(config=self.model.config)
        places = position_ids(valid)
        for step in range(max_new_tokens):
            with torch.no_grad(), self.positions.set_to(adapted, last=1):
                logits = self.model(
                    inputs_embeds=embeds,
                    attention_mask=valid.long(),
                    position_ids=places,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
            if step == 0:
                # An empty reply would answer nobody.
                logits[:, self.stop_ids] = -torch.inf
            tokens = _pick(logits, temperature, top_p)
            yield tokens.tolist()
            embeds, adapted = self.embed(tokens[:, None]), None
            valid = torch.cat([valid, valid.new_ones(len(valid), 1)], dim=1)
            places = places[:, -1:] + 1

    def _computed_again(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        # Hugging Face's own switch is the layer's training mode, which would wake the dropout of a frozen layer.
        def run(*inputs: Any, **options: Any) -> Any:
            if not self.training or not torch.is_grad_enabled() or options.get("past_key_values") is not None:
                return forward(*inputs, **options)
            # The adapters are switched off again by the time a layer is computed anew.
            again = self.positions.as_now()
            return checkpoint(
                forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), again), **options
            )

        return run

    def save(self, folder: str | Path) -> None:
        """Write model and tokenizer as a checkpoint (safetensors)."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def train(self, mode: bool = True) -> CausalLM:
        """Switch mode; a frozen model stays in eval mode, only the adapters' dropout follows."""
        super().train(mode)
        if self.freeze:
            self.model.eval()
            for layer in self.model.modules():
                if isinstance(layer, PartialLoraLinear):
                    layer.lora_dropout.train(mode)
        return self


def position_ids(valid: Tensor) -> Tensor:
    """Positions (B, P) that count valid places only, so that padding shifts nothing."""
    return (valid.long().cumsum(dim=1) - 1).clamp(min=0)


def _pick(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    if temperature <= 0:
        return logits.argmax(dim=-1)
    ordered, order = (logits.float() / temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    ordered = ordered.masked_fill(ordered.cumsum(dim=-1) - ordered > top_p, 0.0)
    return order.gather(1, torch.multinomial(ordered, 1)).squeeze(1)
