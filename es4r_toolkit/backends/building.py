"""New, untrained checkpoints in the formats that real ones have: for the embedded default and for tests."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def build_whisper(
    folder: str | Path, d_model: int, layers: int, heads: int, n_mels: int = 80, positions: int = 1500
) -> None:
    """Save a Whisper checkpoint that has an encoder only.

    Arguments
    ---------
    folder : str or Path
    d_model, layers, heads : int
        Width, depth and attention heads; the feed-forward is four times as wide.
    n_mels : int
        Mel bins.
    positions : int
        The window, in steps of 20 ms; a multiple of 50.
    """
    config = WhisperConfig(
        d_model=d_model,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=4 * d_model,
        num_mel_bins=n_mels,
        max_source_positions=positions,
        dropout=0.0,
        # No decoder: one token is the least the format allows.
        decoder_layers=0,
        decoder_attention_heads=heads,
        vocab_size=1,
        max_target_positions=1,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=n_mels, chunk_length=positions // 50).save_pretrained(folder)


def train_tokenizer(sentences: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a SentencePiece BPE tokenizer, and give it as a Hugging Face one with a chat template.

    Characters that the sentences lack fall back to bytes, so that no text is unknown.

    Arguments
    ---------
    sentences : iterable of str
    vocab_size : int
        Including 256 bytes, and fewer where the sentences hold no more pieces; three control tokens come on top.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        user_defined_symbols=["\n"],
        hard_vocab_limit=False,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = {trained.id_to_piece(index): index for index in range(len(trained))}
    tokenizer = Tokenizer(models.BPE(pieces, _merges(pieces), unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    # Added beside the pieces, not among them, so that no spelling in a text can become one.
    tokenizer.add_special_tokens([PAD, START, END])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[START],
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
    )


def build_qwen3(
    folder: str | Path,
    tokenizer: PreTrainedTokenizerFast,
    hidden_size: int,
    layers: int,
    heads: int,
    intermediate_size: int,
) -> None:
    """Save a Qwen3 causal language model of random weights, with its tokenizer.

    Arguments
    ---------
    folder : str or Path
    tokenizer
        Sets the vocabulary and the end token.
    hidden_size, layers, heads, intermediate_size : int
        Width, depth, attention heads and width of the feed-forward.
    """
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden_size // heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _merges(pieces: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE, which stores its pieces in the order they were made."""
    halves = ((piece[:cut], piece[cut:]) for piece in pieces for cut in range(1, len(piece)))
    known = [pair for pair in halves if pair[0] in pieces and pair[1] in pieces]
    return sorted(known, key=lambda pair: (pieces["".join(pair)], max(pieces[pair[0]], pieces[pair[1]])))
