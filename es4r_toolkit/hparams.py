"""HyperPyYAML with overrides that find their file, one-word swaps of back ends, and one door for strangers."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML, SafeLoader
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.tag import Tag

from es4r_toolkit.errors import ConfigError
from es4r_toolkit.trust import read_yaml, refuse_foreign_tags

INCLUDE = "!include:"
PLACEHOLDER = "!PLACEHOLDER"
MODEL_FOLDER = "@model/"
TUPLE, TUPLE_TAG = re.compile(r"\(.*\)$"), "!tuple"
# What constructors raise for arguments that are not theirs, the last two for sizes larger than memory.
UNFIT = (
    TypeError,
    ValueError,
    AttributeError,
    ImportError,
    LookupError,
    ArithmeticError,
    YAMLError,
    MemoryError,
    RuntimeError,
)


def compose(path: str | Path, overrides: Mapping[str, Any] | None = None, strict: bool = True) -> str:
    """One flat YAML text from a file, the files it includes, and overrides.

    An override goes to the key of its name in this file or, failing that, in
    a file that it includes as a mapping. Where the key's value is an
    ``!include:folder/one.yaml``, the override ``other`` includes
    ``folder/other.yaml`` in its stead, with the same arguments but for those
    that only the first left open; and ``llm_dtype`` goes to the key ``dtype`` of what ``llm`` includes.

    Arguments
    ---------
    path : str or Path
    overrides : mapping, optional
        Top-level keys and their values.
    strict : bool
        Refuse an override that names no key; otherwise it is passed over.

    Raises
    ------
    ConfigError
        If a file is missing or not YAML, or an override names no key or no fragment.
    """
    path, left = Path(path), dict(overrides or {})
    tree = _override(path, left)
    if left and strict:
        known = sorted(keys(path))
        own = [key for key in known if key not in _prefixed(path)]
        near = [match for key in left for match in difflib.get_close_matches(key, known, n=2)]
        hint = f"did you mean {' or '.join(near)}?" if near else f"its keys are {', '.join(own)}"
        raise ConfigError(path, f"has no key {', '.join(left)}", hint)
    return _resolved(tree, path)


def build(text: str) -> dict[str, Any]:
    """Construct what a flat YAML text describes.

    Raises
    ------
    ConfigError
        If an argument is unknown, missing or of the wrong type.
    """
    try:
        return load_hyperpyyaml(text, loader=_Loader)
    except UNFIT as fault:
        reason = " ".join(str(fault).split())[:300]
        raise ConfigError("YAML", f"cannot be built ({reason})", "mend the value it names") from fault


def build_model(file: Path, trust_remote_code: bool = False) -> dict[str, Any]:
    """Construct what the YAML of a model folder describes, whoever made the folder.

    Arguments
    ---------
    file : Path
        ``@model/`` in it is its folder.
    trust_remote_code : bool
        Let it construct and call anything that is installed here.

    Raises
    ------
    ConfigError
        If it is no model file, asks for anything but this package's building blocks, or cannot be built.
    """
    text = read_yaml(file)
    if not trust_remote_code:
        refuse_foreign_tags(text, file)
    return build(localize(text, file.parent))


def plain(text: str) -> dict[str, Any]:
    """A flat YAML text as plain values, nothing constructed; what would be constructed stands as its arguments."""
    return _plain(YAML().load(text))


def section(text: str, key: str) -> str:
    """What stands under one key of a flat YAML text, as a text of its own."""
    return _stream(YAML().load(text)[key], None).getvalue()


def model_file(path: str | Path, choice: str | None = None) -> tuple[Path, dict[str, Any]]:
    """The file that a train YAML includes as ``model``, or the one that an override chooses in its stead.

    What the train YAML says beside it, as on a command line, comes with it.

    Raises
    ------
    ConfigError
        If it includes none.
    """
    node = _load(Path(path)).get("model")
    found = _included(Path(path), node if choice is None else _swap(Path(path), "model", node, choice))
    if found is None:
        raise ConfigError(path, "includes no model", "write model: !include:model.yaml")
    return found, _plain(node) if isinstance(node, dict) else {}


def localize(text: str, folder: str | Path) -> str:
    """Replace ``@model/`` at the start of any value by the folder that the YAML came from.

    Raises
    ------
    ConfigError
        If the text is not YAML, or such a value leads out of the folder.
    """
    tree = _parse(text, folder)
    for node in list(_walk(tree)):
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in list(items):
            if isinstance(value, str) and value.startswith(MODEL_FOLDER):
                node[key] = str(_within(Path(folder).resolve(), value.removeprefix(MODEL_FOLDER)))
    return _stream(tree, None).getvalue()


class _Loader(SafeLoader):
    """Constructs what HyperPyYAML's own tags ask for, and no Python object by the YAML library's tags."""

    @classmethod
    def add_constructor(cls, tag: Any, constructor: Any) -> None:
        # HyperPyYAML reads what stands in a tuple's brackets with a loader that calls what it is told to.
        super().add_constructor(tag, _plain_tuple if tag == TUPLE_TAG else constructor)

    @classmethod
    def add_implicit_resolver(cls, tag: Any, regexp: Any, first: Any) -> None:
        """Nothing: it would hold for every YAML that this process reads later, and be added again by each load."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """A plain text in brackets is a tuple."""
        brackets = kind is ScalarNode and implicit[0] and TUPLE.match(value)
        return Tag(suffix=TUPLE_TAG) if brackets else super().resolve(kind, value, implicit)


def _plain_tuple(loader: SafeLoader, node: ScalarNode) -> tuple:
    return tuple(YAML(typ="safe", pure=True).load(f"[{loader.construct_scalar(node)[1:-1]}]"))


def _within(folder: Path, inner: str) -> Path:
    if Path(inner).is_absolute() or ".." in Path(inner).parts:
        raise ConfigError(f"{MODEL_FOLDER}{inner}", "leads out of the model's folder", "name what lies in it")
    return folder / inner


def _override(path: Path, left: dict[str, Any]) -> CommentedMap:
    """A file's tree with the overrides that it or its includes know applied; they are taken from ``left``."""
    tree = _load(path)
    for key, node in tree.items():
        if key in left:
            tree[key] = _swap(path, key, node, left.pop(key))
    for key, inner in _includes(path, tree):
        if _includes(inner, _load(inner)) and isinstance(tree[key], dict):
            # What is said beside the include of a whole model is said as on the command line.
            given = {**_plain(tree[key]), **left}
            left.clear()
            tree[key] = YAML().load(_resolved(_override(inner, given), inner))
            # What neither knows.
            left.update(given)
            continue
        for name in _own_keys(inner):
            if f"{key}_{name}" in left:
                if name == "source" and isinstance(tree[key], dict):
                    # Sizes that were stated of one checkpoint are not those of another.
                    tree[key].pop("architecture", None)
                tree[key] = _argue(tree[key], name, left.pop(f"{key}_{name}"))
        inside = sorted(left.keys() & keys(inner))
        if inside and isinstance(tree[key], dict) and tree[key]:
            hint = f"give --{key}_{inside[0]}, or --{key}=FILE.yaml with a fragment of your own"
            raise ConfigError(path, f"{', '.join(inside)} stand inside {key}", hint)
        if inside:
            tree[key] = YAML().load(_resolved(_override(inner, left), inner))
    return tree


def _argue(node: Any, name: str, value: Any) -> CommentedMap:
    """An include with one more argument."""
    if not isinstance(node, CommentedMap):
        tag, node = _tag(node), CommentedMap()
        node.yaml_set_ctag(Tag(suffix=tag))
    node[name] = value
    return node


def _swap(path: Path, key: str, node: Any, value: Any) -> Any:
    included = _included(path, node)
    if included is None or not isinstance(value, str):
        return value
    named = Path(value)
    choices = {file.stem: file for file in sorted(included.parent.glob("*.yaml"))}
    chosen = named if named.suffix == ".yaml" and named.is_file() else choices.get(value)
    if chosen is None:
        raise ConfigError(f"--{key}={value}", f"is no file and none of {', '.join(choices)}", f"see {included.parent}")
    if isinstance(node, CommentedMap):
        # What was given because the one before asked for it; another may bring its own.
        before, after = _load(included), _load(chosen)
        for name in [name for name in node if name in after]:
            if _is_open(before.get(name)) and not _is_open(after[name]):
                del node[name]
    node.yaml_set_ctag(Tag(suffix=f"{INCLUDE}{chosen.resolve()}"))
    return node


def _is_open(value: Any) -> bool:
    """Whether a fragment leaves a value to who includes it."""
    return value is None or value == {} or _tag(value) == PLACEHOLDER


def _included(path: Path, node: Any) -> Path | None:
    tag = _tag(node)
    return (path.parent / tag.removeprefix(INCLUDE)).resolve() if tag.startswith(INCLUDE) else None


def keys(path: Path) -> set[str]:
    """The keys that can be overridden in a file and the files it includes."""
    tree = _load(path)
    return set(tree).union(_prefixed(path), *(keys(file) for _, file in _includes(path, tree)))


def _prefixed(path: Path) -> set[str]:
    """The keys of fragments by the fragment's name and their own, such as ``llm_dtype``."""
    included = _includes(path, _load(path))
    own = {f"{key}_{name}" for key, file in included for name in _own_keys(file)}
    return own.union(*(_prefixed(file) for _, file in included))


def _own_keys(path: Path) -> set[str]:
    """The keys of a fragment, which includes no other."""
    tree = _load(path)
    return set() if _includes(path, tree) else set(tree)


def _includes(path: Path, tree: CommentedMap) -> list[tuple[str, Path]]:
    """The keys of a file that include another, and which."""
    found = ((key, _included(path, node)) for key, node in tree.items())
    return [(key, file) for key, file in found if file is not None and file.suffix == ".yaml"]


def _tag(node: Any) -> str:
    tag = getattr(node, "tag", None)
    return (getattr(tag, "value", None) or "") if tag is not None else ""


def _walk(root: Any) -> Iterator[Any]:
    """Every node of a tree, each once however often it is referred to."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())


def _plain(node: Any) -> Any:
    if isinstance(node, CommentedMap):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(value) for value in node]
    # What is constructed without arguments.
    return node.value if isinstance(node, TaggedScalar) else node


def _load(path: Path) -> CommentedMap:
    if not path.is_file():
        raise ConfigError(path, "no such file", "name a YAML file")
    return _parse(path.read_text(encoding="utf-8"), path)


def _parse(text: str, source: str | Path) -> CommentedMap:
    try:
        tree = YAML().load(text)
    except (YAMLError, ValueError, TypeError) as fault:
        # A date such as 2001-99-99 is a ValueError, a list within a key a TypeError.
        raise ConfigError(source, f"is not YAML ({' '.join(str(fault).split())[:300]})", "mend it") from fault
    if not isinstance(tree, CommentedMap):
        raise ConfigError(source, "holds no mapping of keys to values", "write key: value lines")
    return tree


def _resolved(tree: CommentedMap, path: Path) -> str:
    """The text of a tree, its references and includes resolved."""
    try:
        return resolve_references(_stream(tree, path)).getvalue()
    except (ValueError, OSError) as fault:
        reason = " ".join(str(fault).split())[:300]
        raise ConfigError(
            path, f"cannot be resolved ({reason})", "give the value that is missing: --key=value"
        ) from None


def _stream(tree: CommentedMap, path: Path | None) -> io.StringIO:
    stream = io.StringIO()
    YAML().dump(tree, stream)
    stream.seek(0)
    if path is not None:
        # Where includes are looked for.
        stream.name = str(path)
    return stream
