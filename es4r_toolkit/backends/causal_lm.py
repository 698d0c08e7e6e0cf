"""CausalLM: any Hugging Face causal language model with a chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DynamicCache,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from es4r_toolkit.backends.attention import REHEARSED, attend_here
from es4r_toolkit.backends.building import train_tokenizer
from es4r_toolkit.backends.checkpoints import check_sizes, is_folder, is_planning, load_config, load_weights, naming
from es4r_toolkit.backends.last_layer import read_last_only
from es4r_toolkit.backends.partial_lora import PartialLoraLinear, PositionMask, add_partial_lora
from es4r_toolkit.backends.prefix_cache import PrefixCache
from es4r_toolkit.errors import BackendError, require

DTYPES = ("float32", "bfloat16", "float16")
QUANTIZATIONS = ("none", "4bit")
QUANTIZED = "'es4r-toolkit[quantized]'"


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
    quantization : str
        ``none``, or ``4bit``: linear layers are held in NF4 (QLoRA, Dettmers
        et al., 2023) and multiplied in ``dtype``. Needs bitsandbytes and a
        frozen model.
    gradient_checkpointing : bool
        In training, keep only what goes into each layer and compute the rest
        again in the backward pass: less memory for about a third more time.
    revision : str, optional
        Branch, tag or commit on the hub.
    architecture : mapping, optional
        Sizes of a hub checkpoint, for dry runs: keys of its ``config.json``.
    hidden_dim, num_heads : int, optional
        What the YAML reckons with; checked against the checkpoint.

    Raises
    ------
    BackendError
        If the source is missing, has no chat template or is of another size.
    ConfigError
        If a value breaks its rule.
    """

    def __init__(
        self,
        source: str | Path,
        lora: Mapping[str, Any] | None = None,
        freeze: bool = True,
        dtype: str = "float32",
        quantization: str = "none",
        gradient_checkpointing: bool = False,
        revision: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        hidden_dim: int | None = None,
        num_heads: int | None = None,
    ):
        super().__init__()
        require(dtype in DTYPES, "dtype", dtype, f"must be one of {', '.join(DTYPES)}")
        require(quantization in QUANTIZATIONS, "quantization", quantization, "must be none or 4bit")
        require(freeze or quantization == "none", "quantization", quantization, "is for a frozen model")
        # A checkpoint's own Python is never run.
        options = {"dtype": getattr(torch, dtype), "revision": revision, "trust_remote_code": False}
        if quantization == "4bit" and not is_planning():
            for library in ("bitsandbytes", "accelerate"):
                if not find_spec(library):
                    raise BackendError(
                        "quantization", f"needs {library}, which is not installed", f"pip install {QUANTIZED}"
                    )
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=options["dtype"],
            )
        config = load_config(source, architecture, revision)
        self.model = load_weights(AutoModelForCausalLM, source, config, **options).requires_grad_(not freeze)
        self.quantization = quantization
        attend_here(self.model)
        self.tokenizer = _tokenizer(source, revision)
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
        generation = self.model.generation_config
        stops = generation.eos_token_id if isinstance(generation.eos_token_id, list) else [generation.eos_token_id]
        self.stop_ids = sorted({stop for stop in [*stops, self.tokenizer.eos_token_id] if stop is not None})
        self.max_new_tokens = generation.max_new_tokens
        own = {name: getattr(generation, name, None) for name in ("top_k", "top_p", "repetition_penalty")}
        own["temperature"] = (1.0 if generation.temperature is None else generation.temperature) * bool(
            generation.do_sample
        )
        self.sampling = {name: value for name, value in own.items() if value is not None}

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
            ``temperature`` (0 is greedy), ``top_k``, ``top_p`` and
            ``repetition_penalty``; what is left out is as the checkpoint's
            own generation config says.

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

    def prefix_cache(self) -> PrefixCache:
        """For ``stream``: what one context and the next begin alike with is then read once."""
        return PrefixCache(self.model.config)

    def stream(
        self,
        embeds: Tensor,
        valid: Tensor,
        adapted: Tensor | None,
        max_new_tokens: int,
        cache: PrefixCache | None = None,
        **options: Any,
    ) -> Iterator[int]:
        """Continue one row without padding, yielding token ids as they come, without the stop token."""
        for (token,) in self._decode(embeds, valid, adapted, max_new_tokens, cache, **options):
            if token in self.stop_ids:
                return
            yield token

    def _decode(
        self,
        embeds: Tensor,
        valid: Tensor,
        adapted: Tensor | None,
        max_new_tokens: int,
        prefix: PrefixCache | None = None,
        **options: float | None,
    ) -> Iterator[list[int]]:
        # Our own loop, since generate() cannot tell prefill, where LoRA is on, from new tokens, where it is off.
        given = {name: value for name, value in options.items() if value is not None}
        pick = _Picker(**{**self.sampling, **given})
        keys_and_values, known = (prefix or self.prefix_cache()).start(embeds, adapted)
        places = position_ids(valid)[:, known:]
        embeds, adapted = embeds[:, known:], None if adapted is None else adapted[:, known:]
        for step in range(max_new_tokens):
            with torch.no_grad(), self.positions.set_to(adapted, last=1):
                logits = self.model(
                    inputs_embeds=embeds,
                    attention_mask=valid.long(),
                    position_ids=places,
                    past_key_values=keys_and_values,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
            if step == 0:
                # An empty reply would answer nobody.
                logits[:, self.stop_ids] = -torch.inf
            tokens = pick(logits)
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

    def rehearse(self, batch: int, positions: int, adapted: int, last: int) -> Tensor:
        """A forward pass of these sizes, for a dry run on the meta device: only memory counts.

        Arguments
        ---------
        batch, positions : int
            Rows and positions of each.
        adapted : int
            Positions of each row where LoRA is active.
        last : int
            Positions whose logits are computed.
        """
        with torch.device("meta"):
            embeds = torch.empty(batch, positions, self.hidden_dim, dtype=self.model.dtype, requires_grad=True)
            seen = torch.ones(batch, 1, positions, positions, dtype=torch.bool)
            places = torch.ones(batch, positions, dtype=torch.long)
            rows = torch.zeros(batch * adapted, dtype=torch.long)
        self.model.set_attn_implementation(REHEARSED)
        with self.positions.at_rows(rows, last, rows[:0]):
            return self.model(
                inputs_embeds=embeds, attention_mask=seen, position_ids=places, use_cache=False, logits_to_keep=last
            ).logits

    @torch.no_grad()
    def rehearse_cache(self, batch: int, positions: int) -> int:
        """Bytes of the keys and values of so many positions, for a dry run on the meta device."""
        cache = DynamicCache(config=self.model.config)
        with torch.device("meta"):
            embeds = torch.empty(batch, positions, self.hidden_dim, dtype=self.model.dtype)
            seen = torch.ones(batch, 1, positions, positions, dtype=torch.bool)
            places = torch.ones(batch, positions, dtype=torch.long)
        self.model(
            inputs_embeds=embeds, attention_mask=seen, position_ids=places, past_key_values=cache, logits_to_keep=1
        )
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)

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


class _Picker:
    """Chooses the next token of each row (B, V); remembers what it chose."""

    def __init__(self, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, repetition_penalty: float = 1.0):
        require(temperature >= 0, "temperature", temperature, "must not be negative; 0 is greedy")
        require(top_k >= 0, "top_k", top_k, "must not be negative; 0 is all")
        require(0 < top_p <= 1, "top_p", top_p, "must be above 0 and at most 1")
        require(repetition_penalty > 0, "repetition_penalty", repetition_penalty, "must be positive; 1 is none")
        # Below this, dividing by it overflows, and nothing but the likeliest is left anyway.
        self.greedy, self.chosen = temperature < 1e-6, None
        steps = [RepetitionPenaltyLogitsProcessor(repetition_penalty)] if repetition_penalty != 1 else []
        if not self.greedy:
            steps.append(TemperatureLogitsWarper(float(temperature)))
            steps += [TopKLogitsWarper(int(top_k))] if top_k else []
            steps += [TopPLogitsWarper(float(top_p))] if top_p < 1 else []
        self.steps = LogitsProcessorList(steps)

    def __call__(self, logits: Tensor) -> Tensor:
        if self.chosen is None:
            self.chosen = torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)
        scores = self.steps(self.chosen, logits.float()) if self.steps else logits
        tokens = scores.argmax(-1) if self.greedy else torch.multinomial(scores.softmax(-1), 1).squeeze(1)
        self.chosen = torch.cat([self.chosen, tokens[:, None]], dim=1)
        return tokens


def _tokenizer(source: str | Path, revision: str | None) -> PreTrainedTokenizerBase:
    if is_planning() and not is_folder(source):
        # Stands in for what a dry run does not fetch.
        return train_tokenizer(["one two three"], vocab_size=300)
    with naming(source):
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
