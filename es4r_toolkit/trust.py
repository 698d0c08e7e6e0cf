"""What a YAML of unknown origin may hold: so much text, and the building blocks of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from es4r_toolkit.errors import ConfigError

# A model file that a recipe exports has 6 kB, 300 nodes and 5 levels.
MOST_BYTES = 128 * 1024
MOST_NODES = 10_000
DEEPEST = 32
# Of a width, a count or a rate (Hz) that a building block is given; the widest lobe has 16,384.
LARGEST = 2**17
# Whose numbers are no sizes of anything that is built.
NOT_SIZES = ("architecture", "weights", "seed")
# What a model is made of, each by the one name that YAML may call it by. None of them writes, deletes, runs a program
# that it is given or goes anywhere but to the hub.
BUILDING_BLOCKS = frozenset(
    f"!new:es4r_toolkit.{name}"
    for name in (
        "backends.causal_lm.CausalLM",
        "backends.espeak.EspeakSynthesizer",
        "backends.hf_encoder.HFSpeechEncoder",
        "backends.kokoro.KokoroSynthesizer",
        "backends.pocketsphinx_asr.PocketsphinxRecognizer",
        "backends.styletts2.StyleTTS2Synthesizer",
        "backends.whisper.WhisperSpeechEncoder",
        "backends.whisper_asr.WhisperRecognizer",
        "lobes.AffectiveDualAttention",
        "lobes.ConvAdapter",
        "lobes.ConvSubsampler",
        "lobes.DialogueNorm",
        "lobes.EmotionHead",
        "lobes.EnergyStrategySelector",
        "lobes.GatedInjection",
        "lobes.MelDownsampler",
        "lobes.MultiHeadAttention",
        "lobes.SpeechQueryFusion",
        "lobes.StatisticsPooling",
        "lobes.StyleFuser",
        "lobes.TurnAdapter",
        "pipeline.EmpathyPipeline",
        "stages.generation.EmpatheticGeneration",
        "stages.synthesis.EmpatheticSynthesis",
        "stages.understanding.EmpatheticUnderstanding",
    )
)
# What a YAML may ask of a back end that it has built: `n_mels: !ref <model.n_mels>`.
SIZES = ("n_mels", "out_dim", "hidden_dim", "num_heads")
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
SIZE_TAG = "!apply:getattr"
# A text in brackets is a tuple of plain values.
PLAIN_TAGS = ("str", "int", "float", "bool", "null", "map", "seq", "merge", "timestamp", "!tuple")


def read_yaml(path: Path) -> str:
    """The text of a YAML file, of which no more is read than one may hold.

    Raises
    ------
    ConfigError
        If it is larger, or is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ConfigError(path, f"has more than {MOST_BYTES} bytes", "it is no model file; export the model again")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise ConfigError(path, f"is not UTF-8 ({fault})", "export the model again") from fault


def refuse_foreign_tags(text: str, source: str | Path) -> None:
    """Let only this package's building blocks be constructed from a YAML of unknown origin.

    Arguments
    ---------
    text : str
    source : str or Path
        What errors name.

    Raises
    ------
    ConfigError
        If the text is no YAML, is larger or deeper than any model file, grows when its aliases are written out,
        asks for sizes that no model has, or holds any other tag, such as ``!apply:``, ``!ref`` or ``!new:`` of a
        foreign class.
    """
    try:
        _refuse_bombs(YAML().parse(text), source)
        root = YAML().compose(text)
    except YAMLError as fault:
        raise ConfigError(source, f"is not YAML ({' '.join(str(fault).split())[:300]})", "mend it") from fault
    if not isinstance(root, MappingNode):
        raise ConfigError(source, "holds no mapping of keys to values", "write key: value lines")
    for node in _nodes(root):
        tag = str(node.tag)
        allowed = tag.removeprefix("tag:yaml.org,2002:") in PLAIN_TAGS or tag in BUILDING_BLOCKS or _is_size(node)
        if not allowed:
            raise ConfigError(
                source, f"asks for {tag}, which is not allowed", "use --trust-remote-code if you trust it"
            )
        for name, value in _arguments(node) if tag in BUILDING_BLOCKS else ():
            if abs(value) > LARGEST:
                problem = f"asks for {tag} with {name} {value:g}, more than {LARGEST}"
                raise ConfigError(source, problem, "no model is of that size; export the model again")


def _refuse_bombs(events: Iterator[Event], source: str | Path) -> None:
    """Count before anything is built: nodes as if every alias were written out, and how deep they lie."""
    documents = 0
    # Of each collection that is open, what it is called and how many nodes it holds so far.
    open_ones: list[tuple[str | None, int]] = [(None, 0)]
    sizes: dict[str, int] = {}

    def hold(count: int) -> None:
        name, held = open_ones[-1]
        open_ones[-1] = (name, held + count)

    for event in events:
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if event.tags or event.version not in (None, (1, 2)):
                raise ConfigError(source, "sets the version or the tags of YAML itself", "leave its % lines out")
        elif isinstance(event, ScalarEvent):
            hold(1)
            sizes |= {event.anchor: 1} if event.anchor else {}
        elif isinstance(event, SequenceStartEvent | MappingStartEvent):
            open_ones.append((event.anchor, 1))
            # Until it ends, an alias of it would hold itself.
            sizes.pop(event.anchor, None)
        elif isinstance(event, SequenceEndEvent | MappingEndEvent):
            name, count = open_ones.pop()
            hold(count)
            sizes |= {name: count} if name else {}
        elif isinstance(event, AliasEvent):
            if event.anchor not in sizes:
                raise ConfigError(source, f"holds *{event.anchor}, which stands for nothing before it", "mend it")
            hold(sizes[event.anchor])
        nodes = sum(count for _, count in open_ones)
        for problem in (
            f"holds {documents} documents" if documents > 1 else "",
            f"holds more than {MOST_NODES} values, its aliases written out" if nodes > MOST_NODES else "",
            f"is nested deeper than {DEEPEST} levels" if len(open_ones) > DEEPEST else "",
        ):
            if problem:
                raise ConfigError(source, problem, "it is no model file; export the model again")


def _nodes(root: Node) -> Iterator[Node]:
    """Every node of a YAML graph, keys too, each once."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            if not isinstance(node, ScalarNode):
                waiting.extend(chain(*node.value) if isinstance(node, MappingNode) else node.value)


def _arguments(block: Node) -> Iterator[tuple[str, float]]:
    """The numbers that a building block is given, by name or place; not those of other blocks in it."""
    waiting = [("it", block)]
    while waiting:
        name, node = waiting.pop()
        tag = str(node.tag)
        if node is not block and tag.startswith("!") and tag not in PLAIN_TAGS:
            continue
        if isinstance(node, MappingNode):
            pairs = ((str(key.value), value) for key, value in node.value)
            waiting.extend((key, value) for key, value in pairs if key not in NOT_SIZES)
        elif isinstance(node, SequenceNode):
            waiting.extend((name, value) for value in node.value)
        elif tag in NUMBERS or node.value.startswith("("):
            yield from ((name, number) for part in node.value.strip("()").split(",") for number in _numbers(part))


def _numbers(written: str) -> Iterator[float]:
    """What a number is, however it is written; nothing of what is none."""
    try:
        yield int(written, 0)
    except ValueError:
        with suppress(ValueError):
            yield float(written)


def _is_size(node: Node) -> bool:
    """Whether a node asks a building block for one of its sizes, and nothing else."""
    if str(node.tag) != SIZE_TAG or not isinstance(node, SequenceNode) or len(node.value) != 2:
        return False
    block, name = node.value
    return str(block.tag) in BUILDING_BLOCKS and isinstance(name, ScalarNode) and name.value in SIZES
