"""A WordNet and BERTs in the layouts of the published ones, small enough to be made by a test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

PARTS = {"noun": ("n", 1), "verb": ("v", 2), "adj": ("a", 3), "adv": ("r", 4)}
HEADER = "  1 This is no WordNet, but a miniature of its layout.  \n"
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*MARKS, "i", "am", "so", "sorry", "glad", "sad", "you", "are", "happy", "today", ".", ",", "?"]


def write_wordnet(folder: Path, synsets: Mapping[str, Sequence[Sequence[str]]]) -> Path:
    """The data folder of an NLTK whose WordNet has these synonyms: part of speech -> sets of words."""
    corpus = folder / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    senses = []
    for part, (mark, number) in PARTS.items():
        data, offsets = HEADER, defaultdict(list)
        for words in synsets.get(part, []):
            place = len(data)
            for word in words:
                offsets[word].append(f"{place:08d}")
                senses.append(f"{word}%{number}:00:00:: {place:08d} 1 0\n")
            frames = "00 " if part == "verb" else ""
            entries = " ".join(f"{word} 0" for word in words)
            data += f"{place:08d} 00 {mark} {len(words):02x} {entries} 000 {frames}| no gloss  \n"
        index = [f"{word} {mark} {len(of)} 0 {len(of)} 0 {' '.join(of)}  \n" for word, of in sorted(offsets.items())]
        (corpus / f"data.{part}").write_text(data)
        (corpus / f"index.{part}").write_text(HEADER + "".join(index))
        (corpus / f"{part}.exc").write_text("")
    (corpus / "index.sense").write_text("".join(sorted(senses)))
    (corpus / "lexnames").write_text("00\tadj.all\t3\n")
    (corpus / "cntlist.rev").write_text("")
    return folder


def save_bert(folder: Path, layers: int = 3) -> Path:
    """A BERT that knows a dozen words."""
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    marks = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), MARKS))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(**_sizes(len(WORDS), layers), max_position_embeddings=24)).save_pretrained(folder)
    return folder


def save_roberta(folder: Path, layers: int = 3) -> Path:
    """A RoBERTa of single bytes."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    RobertaTokenizer(vocab={piece: place for place, piece in enumerate(vocabulary)}, merges=[]).save_pretrained(folder)
    torch.manual_seed(0)
    marks = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = RobertaConfig(**_sizes(len(vocabulary), layers), max_position_embeddings=40, **marks)
    RobertaModel(config).save_pretrained(folder)
    return folder


def _sizes(vocabulary: int, layers: int) -> dict[str, object]:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "initializer_range": 0.3}
    return {"vocab_size": vocabulary, "num_hidden_layers": layers, **sizes}
