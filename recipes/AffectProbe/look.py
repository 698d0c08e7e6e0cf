"""Where the dual attention of a trained model looks, and how much it changes: python recipes/AffectProbe/look.py RUN

RUN is the folder of a finished training. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from es4r_toolkit.data.dataset import collate, dialogue_dataset
from es4r_toolkit.data.manifest import read_manifest
from es4r_toolkit.errors import DialogueError, ES4RError
from es4r_toolkit.hparams import plain
from es4r_toolkit.inference import EmpathyResponder
from es4r_toolkit.lobes.attention import MultiHeadAttention
from es4r_toolkit.masks import frame_counts


class Watched:
    """What goes through an attention, of the last dialogue: queries, output and weights (L, L)."""

    def __init__(self, attention: MultiHeadAttention):
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []
        plain_forward = attention.forward

        def forward(query: Tensor, key: Tensor, key_valid: Tensor, return_weights: bool = False) -> tuple:
            output, weights = plain_forward(query, key, key_valid, return_weights=True)
            self.calls.append((query, output, weights.masked_fill(~key_valid[:, None], 0.0)))
            return output, weights if return_weights else None

        attention.forward = forward


@torch.no_grad()
def look(run: Path, most: int = 100) -> dict[str, dict[str, float]]:
    """Means over the first test dialogues: of ``intra`` over frames of the speaker's turns, of ``inter`` over all.

    Returns
    -------
    dict
        ``intra`` and ``inter``, where the model has them, each with
        ``change``: size of the attention's output against that of its input,
        which is normalised where the attention is residual; ``evenness``: entropy of the weights
        against that of even ones. ``inter`` has the shares of attention of a
        dialogue's last turn that fall on itself (``own``), on earlier turns of
        the speaker and on turns of the listener, each with what even weights
        would give (``own_even``, ...).

    Raises
    ------
    ES4RError
        If the run or its test set cannot be read.
    """
    settings = run / "hyperparams.yaml"
    if not settings.is_file():
        raise DialogueError(run, "holds no finished training", "name the folder of a run")
    pipeline = EmpathyResponder.from_hparams(run / "model").pipeline
    dual = pipeline.understanding.dual_attention
    watched = {level: Watched(getattr(dual, level)) for level in ("intra", "inter") if getattr(dual, level) is not None}
    if dual.intra is dual.inter and dual.intra is not None:
        # One attention serves both levels: its first call in a dialogue is the intra level's.
        watched["inter"] = watched["intra"]
    manifest = plain(settings.read_text(encoding="utf-8"))["test_manifest"]
    dialogues = read_manifest(manifest).dialogues[:most]
    found: dict[str, list[dict[str, float]]] = {level: [] for level in watched}
    for item in tqdm(dialogue_dataset(dialogues, pipeline.sample_rate), desc="looking", unit="dialogue"):
        batch = collate([item])
        for watch in watched.values():
            watch.calls.clear()
        heard = pipeline.context(batch).heard
        if heard is None:
            raise DialogueError(run, "is of a model that hears nothing", "name a run with speech in its context")
        counts = frame_counts(heard.attended_lens, heard.attended.shape[1])
        for level, watch in watched.items():
            query, output, weights = watch.calls[0 if level == "intra" else -1]
            found[level].append(_measure(level, query, output, weights, counts, batch.is_speaker[heard.kept]))
    return {
        level: {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in rows[0]}
        for level, rows in found.items()
    }


def _measure(
    level: str, query: Tensor, output: Tensor, weights: Tensor, counts: Tensor, is_speaker: Tensor
) -> dict[str, float]:
    """Of one dialogue: intra weights (turns, T, T), inter weights (1, L, L)."""
    if level == "intra":
        rows = [(weights[turn, :size, :size], query[turn, :size], output[turn, :size]) for turn, size in _of(counts)]
        rows = [row for row, speaks in zip(rows, is_speaker.tolist()) if speaks and len(row[0]) > 1]
    else:
        rows = [(weights[0], query[0], output[0])]
    even = [_entropy(row) / torch.tensor(float(row.shape[1])).log() for row, _, _ in rows]
    change = [(out.norm(dim=1) / into.norm(dim=1).clamp(min=1e-9)).mean() for _, into, out in rows]
    measured = {"change": float(torch.stack(change).mean()), "evenness": float(torch.stack(even).mean())}
    if level == "inter":
        turn = torch.repeat_interleave(torch.arange(len(counts)), counts)
        last = turn == len(counts) - 1
        groups = {"own": last, "earlier_speaker": is_speaker[turn] & ~last, "listener": ~is_speaker[turn]}
        for name, frames in groups.items():
            measured[name] = float(weights[0][last][:, frames].sum(dim=1).mean())
            measured[f"{name}_even"] = float(frames.float().mean())
    return measured


def _of(counts: Tensor) -> list[tuple[int, int]]:
    return list(enumerate(counts.tolist()))


def _entropy(weights: Tensor) -> Tensor:
    return -(weights * weights.clamp(min=1e-12).log()).sum(dim=1).mean()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 good, 1 a fault that the user can mend."""
    parser = argparse.ArgumentParser(description="Where the dual attention of a trained model looks.")
    parser.add_argument("run", type=Path, nargs="+", help="folder of a finished training")
    parser.add_argument("--dialogues", type=int, default=100, help="of the test set [%(default)s]")
    options = parser.parse_args(arguments)
    try:
        print(json.dumps({str(run): look(run, options.dialogues) for run in options.run}, indent=2))
    except ES4RError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
