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


STYLETTS2_WIDTH, STYLE_HALF = 32, 16


class ToyDecoder(torch.nn.Module):
    """In place of StyleTTS 2's decoder, whose widths are fixed: 600 samples a frame, a tone of the pitch given."""

    def __init__(self, dim_in: int, style_dim: int, **_: object):
        super().__init__()
        self.mix = torch.nn.Linear(dim_in + style_dim, 1)

    def forward(self, acoustic: torch.Tensor, pitch: torch.Tensor, energy: torch.Tensor, style: torch.Tensor):
        states = torch.cat([acoustic, style[..., None].expand(-1, -1, acoustic.shape[2])], dim=1)
        loudness = self.mix(states.transpose(1, 2)).sigmoid().repeat_interleave(600, dim=1)[..., 0]
        # As the published decoders, it draws noise.
        hertz = (200 + pitch + torch.rand_like(pitch)).repeat_interleave(300, dim=1)
        return loudness * torch.sin(2 * torch.pi * (hertz / 24000).cumsum(1))


def styletts2_settings(width: int = STYLETTS2_WIDTH, style: int = STYLE_HALF) -> tuple[dict, dict]:
    """``config.yml`` of a checkpoint and of its PL-BERT."""
    transformer = {"num_layers": 1, "num_heads": 2, "head_features": 8, "multiplier": 1}
    distribution = {"sigma_data": 0.2, "estimate_sigma_data": True, "mean": -3.0, "std": 1.0}
    decoder = {
        "type": "hifigan",
        "resblock_kernel_sizes": [3],
        "upsample_rates": [10, 5, 3, 2],
        "upsample_initial_channel": 512,
        "resblock_dilation_sizes": [[1, 3, 5]],
        "upsample_kernel_sizes": [20, 10, 6, 4],
    }
    config = {
        "multispeaker": True,
        "dim_in": 8,
        "hidden_dim": width,
        "max_conv_dim": width,
        "n_layer": 1,
        "n_mels": 80,
        "n_token": 178,
        "max_dur": 10,
        "style_dim": style,
        "dropout": 0.2,
        "decoder": decoder,
        "slm": {"hidden": 16, "nlayers": 2, "initial_channel": 4},
        "diffusion": {"embedding_mask_proba": 0.1, "transformer": transformer, "dist": distribution},
    }
    bert = {
        "vocab_size": 178,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 512,
        "num_hidden_layers": 1,
        "dropout": 0.1,
    }
    return {"model_params": config}, {"model_params": bert}


def save_styletts2_pickle(folder: Path, width: int = STYLETTS2_WIDTH, style: int = STYLE_HALF) -> None:
    """``epochs_2nd.pth``, ``config.yml`` and ``plbert.yml`` as StyleTTS 2's authors publish theirs."""
    from es4r_toolkit.backends.styletts2 import MODULES, build_parts

    torch.manual_seed(0)
    config, plbert = styletts2_settings(width, style)
    parts, _ = build_parts(config, plbert, folder)
    with torch.no_grad():
        for encoder in (parts["style_encoder"], parts["predictor_encoder"]):
            for _ in range(5):
                encoder.train()(torch.randn(1, 1, 80, 100))  # so that spectral norms have settled
        # Random weights say next to nothing about durations: these differ from phoneme to phoneme.
        parts["predictor"].duration_proj.linear_layer.weight.mul_(8.0)
    net = {
        name: {f"module.{key}": value.clone() for key, value in parts[name].state_dict().items()} for name in MODULES
    }
    net["bert"]["module.embeddings.position_ids"] = torch.arange(512)[None]
    net["mpd"] = {"module.weight": torch.zeros(3)}  # a discriminator, for training
    torch.save({"net": net, "epoch": 20, "optimizer": {}}, folder / "epochs_2nd.pth")
    (folder / "config.yml").write_text(json.dumps(config))
    (folder / "plbert.yml").write_text(json.dumps(plbert))


# Kokoro's decoder fixes the widths 512 and 128.
KOKORO_SYMBOLS = (
    ';:,.!?—…"()“” abcdefhijklmnopqstuvwxyzAIOQSTWYᵊɑɐɒæβɔɕçɖðʤəɚɛɜɟɡɥɨɪʝɯɰŋɳɲɴøɸθœɹɾɻʁɽʂʃʈʧʊʋʌɣɤχʎʒʔˈˌːʰʲ↓→↗↘ᵻ'
)
KOKORO = {
    "vocab": {symbol: place for place, symbol in enumerate(dict.fromkeys(KOKORO_SYMBOLS), start=1)},
    "n_token": 178,
    "plbert": {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 512,
        "num_hidden_layers": 1,
        "dropout": 0.1,
    },
    "hidden_dim": 512,
    "style_dim": 128,
    "n_layer": 1,
    "max_dur": 8,
    "dropout": 0.2,
    "text_encoder_kernel_size": 5,
    "n_mels": 80,
    "istftnet": {
        "upsample_kernel_sizes": [20, 12],
        "upsample_rates": [10, 6],
        "gen_istft_hop_size": 5,
        "gen_istft_n_fft": 20,
        "resblock_dilation_sizes": [[1, 3, 5]],
        "resblock_kernel_sizes": [3],
        "upsample_initial_channel": 512,
    },
}


def save_kokoro_pickles(folder: Path) -> None:
    """config.json, a pickle of five state dicts and three voice packs, as Kokoro's authors publish theirs."""
    from es4r_toolkit.backends.kokoro import MODULES, build_model

    torch.manual_seed(0)
    model = build_model(KOKORO, folder)
    states = {name: getattr(model, name).state_dict() for name in MODULES}
    nets = {name: {f"module.{key}": value for key, value in state.items()} for name, state in states.items()}
    torch.save(nets, folder / "kokoro-v1_0.pth")
    (folder / "config.json").write_text(json.dumps(KOKORO))
    (folder / "voices").mkdir()
    for name in ("af_heart", "af_bella", "af_nicole"):
        torch.save(torch.randn(510, 1, 256), folder / "voices" / f"{name}.pt")
