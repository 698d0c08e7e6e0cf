"""Dry runs: what a recipe would build, how much memory it would take and what it would download."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from es4r_toolkit.backends.checkpoints import Planned, planning
from es4r_toolkit.errors import ConfigError
from es4r_toolkit.hparams import build, compose
from es4r_toolkit.pipeline import EmpathyPipeline

GIB = 2**30
TOKENS_PER_WORD = 1.4  # of English in the vocabularies of Qwen3 and LLaMA 3, control tokens left out
AROUND = 40  # tokens of system message, roles and chat template
NF4 = 4.127 / 8  # bytes a weight: 4 bits, and constants quantized twice (Dettmers et al., 2023, Sec. 3)


@dataclass(frozen=True)
class Workload:
    """What memory is reckoned for; the defaults are about those of AvaMERG's public samples.

    Attributes
    ----------
    batch : int
        Dialogues.
    turns : int
        Of each history.
    seconds : float
        Of each turn.
    words : int
        Of each turn and of the reply.
    """

    batch: int
    turns: int = 5
    seconds: float = 7.0
    words: int = 20

    @property
    def reply(self) -> int:
        """Tokens of a reply."""
        return math.ceil(self.words * TOKENS_PER_WORD) + 1

    @property
    def history(self) -> int:
        """Tokens of a dialogue's text."""
        return self.turns * (math.ceil(self.words * TOKENS_PER_WORD) + 3)


@dataclass(frozen=True)
class Part:
    """One module of the pipeline: weights that are trained, weights that are frozen, and bytes of both."""

    name: str
    trained: int
    frozen: int
    size: int


@dataclass(frozen=True)
class Plan:
    """What a dry run found; sizes in bytes.

    Attributes
    ----------
    parts : list of Part
    training, inference : dict of str to int
        What takes memory, and how much.
    work : Workload
    checkpoints : list of Planned
        What would have been loaded.
    """

    parts: list[Part]
    training: dict[str, int]
    inference: dict[str, int]
    work: Workload
    checkpoints: list[Planned]


def dry_run(path: str | Path, overrides: Mapping[str, Any]) -> Plan:
    """Build a recipe on the meta device, without weights and without network, and reckon what it takes.

    Arguments
    ---------
    path : str or Path
        A train YAML.
    overrides : mapping
        Its keys and their values.

    Raises
    ------
    ConfigError
        If the recipe builds no pipeline.
    BackendError
        If a fragment does not state the sizes of the hub checkpoint that it names.
    """
    with planning() as checkpoints:
        hparams = build(compose(path, overrides))
    pipeline = hparams.get("model", {}).get("pipeline")
    if not isinstance(pipeline, EmpathyPipeline):
        raise ConfigError(path, "builds no pipeline", "include a model file as model:")
    pipeline.train()
    parts = [_part(pipeline, name, module) for name, module in _parts(pipeline)]
    voice = getattr(pipeline.synthesis, "voice", None)
    if getattr(voice, "planned", 0):
        parts.append(Part("synthesis.voice", 0, voice.planned, voice.planned * torch.float32.itemsize))
    work = Workload(hparams["batch_size"])
    weights, trained = sum(part.size for part in parts), sum(part.trained for part in parts)
    # Gradients and the two moments of Adam.
    training = {"weights": weights, "gradients and AdamW": 3 * 4 * trained, **_activations(pipeline, work)}
    llm = pipeline.generation.llm
    positions = _positions(pipeline, work) + work.reply
    inference = {"weights": weights, "keys and values of one dialogue": llm.rehearse_cache(1, positions)}
    return Plan(parts, training, inference, work, list({entry.source: entry for entry in checkpoints}.values()))


def render(plan: Plan) -> str:
    """A dry run as a page of text."""
    width = max(len(part.name) for part in plan.parts)
    lines = [f"{'module':{width}} {'trained':>15} {'frozen':>15} {'memory':>11}"]
    total = [Part("in all", *(sum(getattr(part, key) for part in plan.parts) for key in ("trained", "frozen", "size")))]
    lines += [
        f"{part.name:{width}} {part.trained:15,} {part.frozen:15,} {_size(part.size):>11}"
        for part in [*plan.parts, *total]
    ]
    work = plan.work
    dialogue = f"of {work.turns} turns, {work.seconds:g} s and {work.words} words each"
    for title, needs in (
        (f"training, {work.batch} dialogues {dialogue} at a time", plan.training),
        (f"answering one dialogue {dialogue}", plan.inference),
    ):
        lines += ["", f"memory for {title} (estimated):"]
        whole = {**needs, "in all": sum(needs.values())}
        lines += [f"    {name:34} {_size(size):>11}" for name, size in whole.items()]
    lines += ["    The lobes' own activations, a library's buffers and what the allocator keeps come on top.", ""]
    wanted = [entry for entry in plan.checkpoints if not entry.is_local]
    lines.append("would be downloaded:" if wanted else "nothing would be downloaded")
    lines += [
        f"    {entry.source:40} {entry.weights / 1e9:6.2f} billion weights, about {entry.size / 1e9:.1f} GB"
        for entry in wanted
    ]
    lines += [f"    (on this machine: {entry.source})" for entry in plan.checkpoints if entry.is_local]
    return "\n".join(lines)


def _parts(pipeline: EmpathyPipeline) -> Iterator[tuple[str, nn.Module]]:
    seen: set[int] = set()
    for stage, module in pipeline.named_children():
        children = [(f"{stage}.{name}", part.parameters()) for name, part in module.named_children()]
        for name, weights in [*children, (stage, module.parameters(recurse=False))]:
            # A recognizer may share the speech encoder.
            fresh = [weight for weight in weights if id(weight) not in seen]
            seen.update(map(id, fresh))
            if fresh:
                yield name, nn.ParameterList(fresh)


def _part(pipeline: EmpathyPipeline, name: str, module: nn.Module) -> Part:
    weights = list(module.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    size = sum(weight.nbytes for weight in weights)
    if name == "generation.llm" and pipeline.generation.llm.quantization == "4bit":
        size -= sum(weight.numel() * (weight.itemsize - NF4) for weight in _quantized(pipeline.generation.llm))
    return Part(name, trained, sum(weight.numel() for weight in weights) - trained, int(size))


def _quantized(module: nn.Module) -> Iterator[nn.Parameter]:
    head = module.model.get_output_embeddings()
    for name, layer in module.named_modules():
        if type(layer) is nn.Linear and layer is not head and "lora_" not in name:
            yield layer.weight


def _positions(pipeline: EmpathyPipeline, work: Workload) -> int:
    """Positions of the prompt."""
    layout = pipeline.generation.layout
    speech = _speech_positions(pipeline, work) if "fused" in layout else 0
    return AROUND + speech + (work.history if "text" in layout else 0)


def _speech_positions(pipeline: EmpathyPipeline, work: Workload) -> int:
    understanding = pipeline.understanding
    if understanding.by_turn:
        return work.turns
    states = sum(-(-count // understanding.encoder.stride) for count in _encoded(pipeline, work))
    return -(-states // _stride(understanding.adapter))


def _encoded(pipeline: EmpathyPipeline, work: Workload) -> list[int]:
    """Frames that the encoder takes of one dialogue, sequence by sequence."""
    understanding = pipeline.understanding
    encoder = understanding.encoder
    frames = math.ceil(work.seconds * encoder.sample_rate / encoder.hop)
    if understanding.injection is not None:
        return [min(frames, encoder.max_frames)] * work.turns
    if getattr(encoder, "full_window", False):
        return [encoder.max_frames]
    return [min(work.turns * -(-frames // _stride(understanding.downsampler)), encoder.max_frames)]


def _stride(module: nn.Module) -> int:
    return math.prod(layer.stride[0] for layer in module.modules() if isinstance(layer, nn.Conv1d))


def _activations(pipeline: EmpathyPipeline, work: Workload) -> dict[str, int]:
    generation, needs = pipeline.generation, {}
    speech = _speech_positions(pipeline, work) if generation.hears else 0
    if generation.hears:
        encoder, counts = pipeline.understanding.encoder, _encoded(pipeline, work) * work.batch
        needs["activations of the speech encoder"] = saved_bytes(lambda: encoder.rehearse(counts))

    def answer() -> Tensor:
        adapted = _positions(pipeline, work) if generation.lora_scope == "context" else speech
        logits = generation.llm.rehearse(
            work.batch, _positions(pipeline, work) + work.reply - 1, adapted, last=work.reply
        )
        targets = torch.zeros(work.batch * work.reply, dtype=torch.long, device="meta")
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets)

    needs["activations of the language model"] = saved_bytes(answer)
    return needs


def saved_bytes(run: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, weights left out; each storage counts once."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        # A linear layer keeps its weight turned, as a view.
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
