"""Checkpoints of random weights in the formats of published ones, small enough to be made by a test."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    HubertConfig,
    HubertModel,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
# The base models run a group norm over the whole clip, the large ones a layer norm over each frame.
SELF_SUPERVISED = {
    "wavlm base": (WavLMModel, WavLMConfig, {}),
    "wavlm large": (WavLMModel, WavLMConfig, LARGE),
    "hubert base": (HubertModel, HubertConfig, {}),
    "hubert large": (HubertModel, HubertConfig, {**LARGE, "conv_bias": True}),
    "wav2vec2 base": (Wav2Vec2Model, Wav2Vec2Config, {}),
    "wav2vec2 large": (Wav2Vec2Model, Wav2Vec2Config, LARGE),
}


def save_self_supervised(folder: Path, kind: str, width: int = 32, bins: int = 16) -> None:
    """WavLM, HuBERT or wav2vec 2.0 of two layers."""
    model, config, options = SELF_SUPERVISED[kind]
    sizes = {"hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    convolutions = {"conv_dim": (bins,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    torch.manual_seed(0)
    model(config(**sizes, **convolutions, **options)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def save_whisper(folder: Path, n_mels: int = 16, seconds: int = 2) -> None:
    """A whole Whisper of two languages, with encoder, decoder and a tokenizer of bytes."""
    torch.manual_seed(1)
    vocabulary = {letter: place for place, letter in enumerate(LETTERS)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    end, start, english, german, task, untimed = (tokenizer.token_to_id(token) for token in SPECIAL)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    wrapped.save_pretrained(folder)
    marks = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    config = WhisperConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=n_mels,
        max_source_positions=50 * seconds,
        max_target_positions=24,
        vocab_size=len(LETTERS) + len(SPECIAL),
        init_std=0.4,  # so that what it writes depends on what it hears
        **marks,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=n_mels, chunk_length=seconds).save_pretrained(folder)
    generation = {
        **marks,
        "max_length": 24,
        "is_multilingual": True,
        "lang_to_id": {"<|en|>": english, "<|de|>": german},
        "task_to_id": {"transcribe": task},
        "no_timestamps_token_id": untimed,
        "return_timestamps": False,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))
