"""A judge on this machine: any Hugging Face language model with a chat template."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from es4r_toolkit.backends.causal_lm import CausalLM
from es4r_toolkit.errors import BackendError, require
from es4r_toolkit.metrics.judge.asking import Reply, Settings, Unanswered
from es4r_toolkit.metrics.judge.prompts import Messages
from es4r_toolkit.prompt import PromptRenderer

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
DEFAULTS = {"max_tokens": 1024}


def local_settings(folder: str | Path, precision: str, options: Mapping[str, object]) -> Settings:
    """What a local model's answer depends on; changed files are another model.

    Arguments
    ---------
    folder : str or Path
        A safetensors checkpoint with its tokenizer.
    precision : str
        ``fp32`` or ``bf16``.
    options : mapping
        ``max_tokens``, no more: a local model always says what is likeliest, so that it says the same again.

    Raises
    ------
    BackendError, ConfigError
        If there is no such folder, or an option is not known.
    """
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise BackendError(folder, "no such folder", "give the folder of a safetensors checkpoint")
    require(precision in DTYPES, "precision", precision, f"must be one of {', '.join(DTYPES)}")
    for name in options:
        require(name in DEFAULTS, "setting", name, "must be max_tokens; a local model takes no other")
    given = {**DEFAULTS, **options}
    length = given["max_tokens"]
    require(type(length) is int and length > 0, "max_tokens", length, "must be a positive whole number")
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir() if file.is_file()]
    state = hashlib.sha256(repr(sorted(files)).encode()).hexdigest()
    return Settings("local", str(folder), {**given, "precision": precision, "files": state})


class LocalModel:
    """Asks a language model in this process, greedily.

    Arguments
    ---------
    settings : Settings
        From ``local_settings``.
    device : str
        Such as ``cuda:0``.

    Raises
    ------
    BackendError
        If the folder holds no such model.
    """

    def __init__(self, settings: Settings, device: str = "cpu"):
        self.settings = settings
        self.llm = CausalLM(settings.model, dtype=DTYPES[settings.options["precision"]]).to(device).eval()

    def ask(self, messages: Messages) -> Reply:
        """Its answer; a control token in what the messages quote is read as plain text."""
        system, user = (message["content"] for message in messages)
        renderer = PromptRenderer(self.llm.tokenizer, system)
        around, most = renderer([]), self.settings.options["max_tokens"]
        ids = [*around.prefix, *renderer.plain(user), *around.suffix]
        if self.llm.max_positions is not None and len(ids) + most > self.llm.max_positions:
            raise Unanswered(f"{len(ids)} tokens and {most} to answer are more than its {self.llm.max_positions}")
        embeds = self.llm.embed(torch.tensor([ids], device=self.llm.embedding_table.device))
        valid = torch.ones(1, len(ids), dtype=torch.bool, device=embeds.device)
        (new,) = self.llm.generate(embeds, valid, None, most, temperature=0.0, repetition_penalty=1.0)
        # What stops at the last step by itself cannot be told from what is stopped there.
        return Reply(renderer.text(new), "length" if len(new) == most else "stop", len(ids), len(new))

    def stop(self) -> None:
        """Nothing to stop: an answer under way is finished."""
