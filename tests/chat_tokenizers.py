"""Tokenizers in the manner of those that chat models have, and of odd ones, small enough to be made by a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from es4r_toolkit.backends.building import CHAT_TEMPLATE

SHIPPED = Path(__file__).parents[1] / "es4r_toolkit" / "assets" / "affectprobe-small" / "llm"
SENTENCES = ["speaker: I failed my exam today.\n", "listener: Do you want to talk about it?\n", "It is hard."] * 20
LLAMA_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# Gemma 3 puts the system message into the user's.
GEMMA_TEMPLATE = (
    "<bos><start_of_turn>user\n{{ messages[0]['content'] }}\n\n{{ messages[1]['content'] }}<end_of_turn>\n"
    "<start_of_turn>model\n"
)
ODD_TEMPLATE = "[[sys]]{{ messages[0]['content'] }}||say||{{ messages[1]['content'] }}END"


def shipped() -> PreTrainedTokenizerFast:
    """SentencePiece BPE that falls back to bytes, as the small model in the package has it."""
    return AutoTokenizer.from_pretrained(SHIPPED)


def qwen() -> PreTrainedTokenizerFast:
    """Bytes, NFC, ChatML; thinking and tool tags are added tokens that are not special."""
    tokenizer = _of_bytes(normalizers.NFC())
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|box_start|>"])
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in ("<think>", "</think>", "<tool_call>")])
    return _wrapped(tokenizer, CHAT_TEMPLATE, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def llama3() -> PreTrainedTokenizerFast:
    """Bytes, no normalizer, a block of reserved control tokens."""
    tokenizer = _of_bytes(None)
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer.add_special_tokens([*marks, *(f"<|reserved_special_token_{place}|>" for place in range(20))])
    return _wrapped(tokenizer, LLAMA_TEMPLATE, eos_token="<|eot_id|>", bos_token="<|begin_of_text|>")


def gemma() -> PreTrainedTokenizerFast:
    """Spaces as ▁, control tokens among the pieces, runs of line breaks and spaces as added tokens."""
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<unused0>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    pieces = [*marks, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=400, special_tokens=pieces))
    data = tokenizer.to_str()
    # The trainer made control tokens of the bytes too, which they are not.
    tokenizer = _without_added(data, [piece for piece in pieces if piece not in marks])
    tokenizer.add_tokens([AddedToken(run, normalized=False) for run in ("\n\n", "\n\n\n", "▁▁", "<h1>")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = {"unk_token": "<unk>", "eos_token": "<eos>", "bos_token": "<bos>", "pad_token": "<pad>"}
    return _wrapped(tokenizer, GEMMA_TEMPLATE, **names)


def odd() -> PreTrainedTokenizerFast:
    """All that could go wrong: NFKC and small letters before added tokens are looked for, tokens without brackets,
    tokens that overlap themselves, hold a space, swallow spaces, lie inside another or are one letter."""
    steps = [normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents()]
    tokenizer = _of_bytes(normalizers.Sequence(steps))
    special = ["||", "||say||", "[[sys]]", "end", "aaa", "a b", "^", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(mark, normalized=True, special=True) for mark in special])
    tokenizer.add_tokens([AddedToken("<tag>", lstrip=True, rstrip=True, normalized=True), AddedToken("</s>")])
    return _wrapped(tokenizer, ODD_TEMPLATE, eos_token="||")


def merging() -> PreTrainedTokenizerFast:
    """Control tokens whose letters merge into them, as some conversions of SentencePiece have it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, "</", "</s", "</s>", "<s", "<s>"]
    merges = [("<", "/"), ("</", "s"), ("</s", ">"), ("<", "s"), ("<s", ">")]
    model = models.BPE({piece: place for place, piece in enumerate(pieces)}, merges)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(False, use_regex=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return _wrapped(tokenizer, CHAT_TEMPLATE, eos_token="</s>", bos_token="<s>")


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    make.__name__: make for make in (shipped, qwen, llama3, gemma, odd, merging)
}


def _of_bytes(normalizer: normalizers.Normalizer | None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    return tokenizer


def _without_added(data: str, pieces: list[str]) -> Tokenizer:
    saved = json.loads(data)
    saved["added_tokens"] = [token for token in saved["added_tokens"] if token["content"] not in pieces]
    return Tokenizer.from_str(json.dumps(saved))


def _wrapped(tokenizer: Tokenizer, template: str, **names: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **names)
