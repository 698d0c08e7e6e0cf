"""A model's YAML from a stranger builds what this package is made of, and nothing else, in bounded time and memory."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from torch import nn

from es4r_toolkit import lobes
from es4r_toolkit.backends.styletts2 import read_settings
from es4r_toolkit.errors import BackendError, ConfigError, ES4RError
from es4r_toolkit.hparams import build, build_model, compose, localize
from es4r_toolkit.trust import BUILDING_BLOCKS, DEEPEST, MOST_BYTES, MOST_NODES, refuse_foreign_tags

ROOT = Path(__file__).parents[2]
RUN = "touch sprung"


@pytest.fixture
def model_of(tmp_path, monkeypatch):
    """Writes a model file and builds it, in a folder where nothing may appear beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "other.yaml").write_text("a: 1\n")
    monkeypatch.chdir(tmp_path)

    def build_it(content: str | bytes, trust: bool = False) -> dict:
        path = folder / "model.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return build_model(path, trust)

    yield build_it
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "something was run"


# -- what is let through ----------------------------------------------------------------------------------------------


def test_this_packages_building_blocks_are_built(model_of):
    text = (
        "fuser: !new:es4r_toolkit.lobes.StyleFuser\n    silence: 0.5\nvalues: [1, 2.5, null, true, text, 2001-01-01]\n"
    )
    built = model_of(text)
    assert built["fuser"].silence == 0.5
    assert built["values"][:5] == [1, 2.5, None, True, "text"]


def test_a_building_block_may_be_asked_for_its_sizes(model_of):
    text = "adapter: &one !new:es4r_toolkit.lobes.EmotionHead [4, [calm, sad]]\nwidth: !apply:getattr [*one, n_mels]\n"
    with pytest.raises(ConfigError, match="n_mels"):
        # It is let through, and asked: this one has no such size.
        model_of(text)


def test_tuples_hold_plain_values(model_of):
    assert model_of("a: (2, 2)\nb: (text, fused)\n") == {"a": (2, 2), "b": ("text", "fused")}


@pytest.mark.parametrize("preset", ["plus", "paper"])
@pytest.mark.parametrize("recipe", ["AffectProbe", "AvaMERG"])
def test_the_models_that_the_recipes_write_are_allowed(recipe, preset):
    path = ROOT / "recipes" / recipe / "hparams/model.yaml"
    refuse_foreign_tags(compose(path, {"preset": preset}), path)


def test_every_building_block_of_every_recipe_and_fragment_is_allowed():
    folders = [*(ROOT / "recipes").rglob("model*.yaml"), *(ROOT / "recipes/_shared").rglob("*.yaml")]
    built = {tag for path in folders for tag in tags_of(YAML().load(path)) if tag.startswith("!new:")}
    assert len(built) > 15
    assert sorted(built - BUILDING_BLOCKS) == []


def test_every_lobe_is_allowed():
    modules = {name for name in lobes.__all__ if issubclass(getattr(lobes, name), nn.Module)}
    assert {f"!new:es4r_toolkit.lobes.{name}" for name in modules} <= BUILDING_BLOCKS


@pytest.mark.parametrize("tag", sorted(BUILDING_BLOCKS))
def test_what_is_allowed_is_a_class_that_speaks_hears_or_is_a_part_of_a_model(tag):
    found = pydoc.locate(tag.removeprefix("!new:"))
    assert inspect.isclass(found)
    assert found.__module__.startswith("es4r_toolkit.")
    assert issubclass(found, nn.Module) or hasattr(found, "synthesize") or hasattr(found, "transcribe")
    # Trust is not a model's to give.
    assert "trust_remote_code" not in inspect.signature(found).parameters


def tags_of(node: object) -> Iterator[str]:
    if tag := getattr(getattr(node, "tag", None), "value", None):
        yield tag
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from tags_of(child)


# -- what is refused --------------------------------------------------------------------------------------------------

BLOCK = "!new:es4r_toolkit.lobes.StyleFuser"
FOREIGN = {
    "a function": f"a: !apply:os.system ['{RUN}']\n",
    "a function without arguments": "a: !apply:os.getcwd\n",
    "a function that is applied before anything is built": f"a: !applyref:os.system ['{RUN}']\n",
    "a class of another package": f"a: !new:subprocess.Popen [[{RUN.replace(' ', ', ')}]]\n",
    "a name": "a: !name:os.system\n",
    "a name with arguments": f"a: !name:os.system ['{RUN}']\n",
    "a module": "a: !module:os\n",
    "a file of the system": "a: !include:/etc/hostname\n",
    "a file outside the folder": "a: !include:../outside.yaml\n",
    "a file inside the folder": "a: !include:other.yaml\n",
    "a reference": "a: 1\nb: !ref <a>\n",
    "a reference to an attribute": f"a: {BLOCK}\nb: !ref <a.__class__.__init__.__globals__>\n",
    "a reference that reckons": "a: 9\nb: !ref <a> ** 9 ** 9 ** 9\n",
    "a copy": "a: [1]\nb: !copy <a>\n",
    "a placeholder": "a: !PLACEHOLDER\n",
    "a call of the YAML library": f"a: !!python/object/apply:os.system ['{RUN}']\n",
    "an object of the YAML library": f"a: !!python/object/new:os.system ['{RUN}']\n",
    "a name of the YAML library": "a: !!python/name:os.system\n",
    "a module of the YAML library": "a: !!python/module:os\n",
    "a tuple of the YAML library": "a: !!python/tuple [1, 2]\n",
    "a tag in full": f"a: !<tag:yaml.org,2002:python/object/apply:os.system> ['{RUN}']\n",
    "a tag with its letters as numbers": f"a: !%61pply:os.system ['{RUN}']\n",
    "another version of YAML": "%YAML 1.1\n---\na: yes\n",
    "a tag behind a prefix": "%TAG !e! !apply:os.\n---\na: !e!getcwd\n",
    "a tag behind the plain prefix": f"%TAG ! tag:yaml.org,2002:python/object/apply:\n---\na: !os.system ['{RUN}']\n",
    "a tag behind the library's prefix": f"%TAG !! !apply:os.\n---\na: !!system ['{RUN}']\n",
    "bytes": "a: !!binary R0lGODlhDAAMAIQAAP==\n",
    "a set": "a: !!set {1, 2}\n",
    "something deep inside": f"a:\n  - b:\n      - c: !apply:os.system ['{RUN}']\n",
    "something behind an alias": "a: &x !apply:os.getcwd\nb: *x\n",
    "something that is merged in": f"a: &x {{b: !apply:os.system ['{RUN}']}}\nc:\n  <<: *x\n",
    "something under a key that is dropped": f"__a: !apply:os.system ['{RUN}']\n",
    "the whole file": "!apply:os.getcwd\nargs: 1\n",
    "a second document": f"a: 1\n---\nb: !apply:os.system ['{RUN}']\n",
    "something in a key": "a: {? !apply:os.getcwd [] : 1}\n",
    "something in a plain key": "a:\n  !apply:os.getcwd : 1\n",
    "a module that an own module imports": "a: !new:es4r_toolkit.backends.espeak.subprocess.Popen\n    args: [true]\n",
    "a class that an own module imports": "a: !new:es4r_toolkit.pipeline.Path\n",
    "a function of this package": "a: !new:es4r_toolkit.backends.building.build_whisper\n    folder: x\n",
    "a converter of this package": "a: !new:es4r_toolkit.backends.converting.new_folder\n    target: x\n",
    "a program as a model": "a: !new:es4r_toolkit.backends.mos.MosModel {source: x.pt, trust_remote_code: true}\n",
    "a process of this package": "a: !new:es4r_toolkit.backends.espeak_process.EspeakProcess\n",
    "a scorer of this package": "a: !new:es4r_toolkit.backends.bertscore.BertScore {source: someone/model}\n",
    "a lobe by another name than its own": "a: !new:es4r_toolkit.lobes.attention.MultiHeadAttention [8, 2]\n",
    "an inside of a building block": f"a: {BLOCK}.forward\n",
    "a prefix that only looks like this package": "a: !new:es4r_toolkit.lobes_of_mine.Thing\n",
    "an attribute that is no size": f"a: &a {BLOCK}\nb: !apply:getattr [*a, __class__]\n",
    "a size of something else": "a: !apply:getattr [text, n_mels]\n",
    "a size of a list": f"a: !apply:getattr [[{BLOCK} {{}}], n_mels]\n",
    "a size with a default": f"a: &a {BLOCK}\nb: !apply:getattr [*a, n_mels, 1]\n",
    "a size by keywords": f"a: &a {BLOCK}\nb: !apply:getattr {{object: *a, name: n_mels}}\n",
    "a size whose name is built": f"a: &a {BLOCK}\nb: !apply:getattr [*a, !apply:os.getcwd []]\n",
    "a size whose name is tagged": f"a: &a {BLOCK}\nb: !apply:getattr [*a, !name:os.system n_mels]\n",
    "a size of a size": f"a: &a {BLOCK}\nb: !apply:getattr [!apply:getattr [*a, n_mels], n_mels]\n",
    "a size of a foreign class": "a: &a !new:subprocess.Popen\nb: !apply:getattr [*a, n_mels]\n",
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_not_ours_is_refused_before_anything_is_built(model_of, text):
    with pytest.raises(ConfigError, match=r"model\.yaml: (asks for|holds|sets|is not YAML)"):
        model_of(text)


@pytest.mark.parametrize("tag", ["", "!tuple "], ids=["untagged", "tagged"])
@pytest.mark.parametrize("quote", ["", '"', "|\n  ", ">\n  "], ids=["plain", "quoted", "literal", "folded"])
@pytest.mark.parametrize("trust", [False, True], ids=["a stranger's", "a trusted one's"])
def test_a_text_in_brackets_runs_nothing(model_of, tag, quote, trust):
    """HyperPyYAML makes a tuple of it, and would read that with a loader that runs what it names."""
    # Some are texts and some broken tuples; what counts is that nothing lies beside the model.
    with suppress(ConfigError):
        model_of(f"a: {tag}{quote}(!!python/object/apply:os.system ['{RUN}']){quote.strip()[:1].strip('|>')}\n", trust)


def test_a_text_in_brackets_reads_the_same_first_and_last(model_of):
    assert [model_of("a: '(x, y)'\n") for _ in range(3)] == 3 * [{"a": ("x", "y")}]


def test_a_trusted_model_may_build_what_it_likes(model_of):
    assert model_of("a: !apply:operator.add [1, 2]\n", trust=True) == {"a": 3}


# -- bombs ------------------------------------------------------------------------------------------------------------


def laughs(first: str, again: str) -> str:
    """Ten times ten times ... of what stands first."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{place}: &a{place} " + again.replace("X", f"*a{place - 1}") for place in range(1, 10)]
    return "\n".join(lines) + "\n"


TEN = ", ".join(["X"] * 10)
BOMBS = {
    "lists of aliases": laughs("[lol]", f"[{TEN}]"),
    "mappings of aliases": laughs("{k: lol}", "{" + ", ".join(f"k{one}: X" for one in range(10)) + "}"),
    "merges of aliases": laughs("{k: lol}", f"{{<<: [{TEN}]}}"),
    "blocks of aliases": laughs(f"{BLOCK} {{silence: 1}}", f"[{TEN}]"),
    "a list in itself": "a: &a [1, *a]\n",
    "a block in itself": f"a: &a {BLOCK}\n    silence: *a\n",
    "lists in one another": "a: &a [&b [*a]]\nc: *b\n",
    "an alias of nothing": "a: *nothing\n",
    "an alias before its anchor": "a: *b\nb: &b 1\n",
    "brackets": "a: " + "[" * 50_000,
    "braces": "a: " + "{b: " * 30_000,
    "closed brackets": f"a: {'[' * DEEPEST}{']' * DEEPEST}\n",
    "levels by dashes": "a:\n" + "- " * 20_000,
    "levels by indentation": "".join(f"{' ' * level}a:\n" for level in range(300)),
    "too many values": "a: [" + "1," * MOST_NODES + "]\n",
    "too many keys": "".join(f"k{number}: 1\n" for number in range(MOST_NODES)),
    "too large": "a: " + "x" * MOST_BYTES,
    "a name a million letters long": "a: !new:" + "x" * 100_000 + "\n",
    "a number a million digits long": "a: " + "9" * 100_000 + "\n",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.timeout(30)
def test_a_bomb_is_refused_while_it_is_small(model_of, text):
    with pytest.raises(ConfigError):
        model_of(text)


def test_a_file_without_an_end_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "model.yaml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match="has more than 131072 bytes"):
        build_model(tmp_path / "model.yaml")


def test_values_are_counted_as_if_aliases_were_written_out():
    fits = "a: &a [1, 2, 3]\nb: [" + "*a, " * 100 + "]\n"
    refuse_foreign_tags(fits, "model.yaml")
    # Each alias is a list and three numbers.
    with pytest.raises(ConfigError, match="more than 10000 values"):
        refuse_foreign_tags(fits.replace("*a, " * 100, "*a, " * (MOST_NODES // 4)), "model.yaml")


# -- bytes that are no YAML -------------------------------------------------------------------------------------------

NOT_YAML = {
    "nothing": b"",
    "a comment alone": b"# nothing\n",
    "a list": b"- 1\n",
    "a word": b"word\n",
    "a null byte": b"a: b\x00c\n",
    "a control character": b"a: b\x07c\n",
    "another encoding": "a: ü\n".encode("latin-1"),
    "UTF-16": "a: b\n".encode("utf-16"),
    "UTF-32": "a: b\n".encode("utf-32"),
    "a lone surrogate": b"a: \xed\xa0\x80\n",
    "a picture": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "a key twice": b"a: 1\na: 2\n",
    "a key twice deep inside": b"a: {b: 1, b: 2}\n",
    "a list within a key": b"? a: [1]\n: 1\n",
    "tabs": b"a:\n\tb: 1\n",
    "a date that is none": b"a: 2001-99-99\n",
    "an open quote": b"a: 'b\n",
    "an unknown escape": b'a: "\\q"\n',
    "a version from the future": b"%YAML 9.9\n---\na: 1\n",
}


@pytest.mark.parametrize("content", NOT_YAML.values(), ids=NOT_YAML.keys())
def test_what_is_no_model_file_is_one_named_error(model_of, content):
    with pytest.raises(ConfigError) as caught:
        model_of(content)
    assert caught.value.mend


def test_a_byte_order_mark_is_passed_over(model_of):
    assert model_of(b"\xef\xbb\xbfa: 1\n") == {"a": 1}


# -- hostile arguments of what is allowed -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["@model/../secret", "@model//etc/passwd", "@model/a/../../b", "@model/.."])
def test_a_path_within_the_model_cannot_lead_out_of_it(value, tmp_path):
    for text in (f"a: '{value}'\n", f"a: ['{value}']\n", f"a: {BLOCK}\n    silence: '{value}'\n"):
        with pytest.raises(ConfigError, match="leads out of the model's folder"):
            localize(text, tmp_path)


HOSTILE = {
    "sizes beyond any model": ("lobes.TurnAdapter [1000000000, 8, 8]", "it 1e\\+09, more than 131072"),
    "sizes by name": ("lobes.MelDownsampler {input_size: 0x7FFFFFFF}", "input_size 2.14748e"),
    "sizes in a list": ("lobes.MelDownsampler {input_size: 8, strides: [2, 1_000_000]}", "strides 1e"),
    "sizes in a tuple": ("lobes.MelDownsampler\n    strides: (2, 1000000)", "strides 1e"),
    "sizes in a tagged tuple": ("lobes.MelDownsampler\n    strides: !tuple (2, 1000000)", "strides 1e"),
    "sizes that are merged in": ("lobes.MelDownsampler\n    <<: {input_size: 1000000}", "input_size 1e"),
    "sizes of thousands of digits": ("lobes.MelDownsampler {input_size: " + "9" * 9999 + "}", "more than 131072"),
    "replies without an end": ("stages.generation.EmpatheticGeneration {max_new_tokens: 1e12}", "max_new_tokens 1e"),
    "sizes that are no numbers": ("lobes.MelDownsampler {input_size: wide}", "cannot be built"),
    "sizes below nothing": ("lobes.MelDownsampler {input_size: -5}", "negative dimension"),
    "a text as a module": ("pipeline.EmpathyPipeline {understanding: a, generation: b}", "cannot be built"),
    "arguments of another": ("lobes.StyleFuser {command: x}", "command"),
    "arguments that are Python's own": ("lobes.StyleFuser {self: 1, __class__: 2}", "cannot be built"),
    "a device for a checkpoint": ("backends.causal_lm.CausalLM {source: /dev/zero}", "cannot be loaded"),
    "an address for a checkpoint": ("backends.causal_lm.CausalLM {source: 'http://127.0.0.1/a'}", "cannot be loaded"),
    "a command for a checkpoint": (f"backends.whisper.WhisperSpeechEncoder {{source: '; {RUN}'}}", "cannot be loaded"),
}


@pytest.mark.parametrize(("block", "problem"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_arguments_are_one_named_error(model_of, block, problem):
    with pytest.raises(ES4RError, match=problem):
        model_of(f"a: !new:es4r_toolkit.{block}\n")


def test_sizes_that_only_a_dry_run_reckons_with_may_be_large():
    sizes = "architecture: {rope_theta: 5000000}, weights: 82000000, seed: 4294967295"
    refuse_foreign_tags(f"a: !new:es4r_toolkit.backends.causal_lm.CausalLM {{{sizes}}}\n", "model.yaml")


def test_more_memory_than_there_is_is_one_named_error():
    with pytest.raises(ConfigError, match="cannot be built"):
        build(f"a: !new:es4r_toolkit.lobes.ConvAdapter [{10**9}, {10**9}]\n")


def test_a_voice_is_no_command(model_of):
    voice = model_of(f"a: !new:es4r_toolkit.backends.espeak.EspeakSynthesizer {{voice: 'en; {RUN}'}}\n")["a"]
    with pytest.raises(BackendError, match="is no voice name"):
        voice.synthesize("Hello.")
    voice.close()


def test_what_is_built_is_what_was_looked_at():
    """A text reads the same after its paths were made those of this machine."""
    text = f"a: &a {BLOCK}\n    silence: 0.5\nb: *a\nc: '@model/x'\nd: ''\ne: '!apply:os.getcwd'\nf: 'null'\n"
    built = build(localize(text, "/model"))
    assert built["a"] is built["b"]
    assert (built["c"], built["d"], built["e"], built["f"]) == ("/model/x", "", "!apply:os.getcwd", "null")


@pytest.mark.parametrize("text", [*FOREIGN.values(), *BOMBS.values()], ids=[*FOREIGN, *BOMBS])
def test_the_settings_of_a_published_voice_are_no_way_around(tmp_path, text):
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(BackendError, match="cannot be read"):
        read_settings(tmp_path / "config.yml")
