"""The shape of the project: imports point one way, names are the field's, and YAML names what exists."""

from __future__ import annotations

import ast
import graphlib
import inspect
import pydoc
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PACKAGE, LOBES, RECIPES, TESTS = ROOT / "es4r_toolkit", ROOT / "lobes", ROOT / "recipes", ROOT / "tests"

# Which may be imported by which: a part imports itself and parts of a lower or the same rank.
RANKS = [
    {"__init__", "errors", "dialogue", "masks", "processes", "cancelling", "unheard"},
    {"lobes", "trust"},
    {"hparams"},
    {"protocols"},
    {"backends", "data", "prompt"},
    {"metrics", "stages"},
    {"pipeline", "losses", "examining"},
    {"planning"},
    {"brain", "checkpointing", "skipping", "training", "inference", "replaying", "report"},
    {"cli", "demo", "serving"},
]
# Within a rank too, these look away from one another.
NEVER = {"stages": {"backends"}, "prompt": {"backends"}, "data": {"backends"}, "lobes": {"hparams"}}
HOLDERS = {
    "transformers": {"backends"},
    "peft": {"backends"},
    "styletts2": {"backends"},
    "kokoro": {"backends"},
    "espeakng_loader": {"backends"},
    "speechbrain": {"data.dataset", "brain", "checkpointing", "training"},
    "httpx2": {"metrics.judge.endpoint"},
    "bert_score": {"backends"},
    "parselmouth": {"metrics.prosody"},
    "jiwer": {"metrics.word_errors"},
    "gradio": {"demo"},
    "fastapi": {"serving"},
    "starlette": {"serving", "demo"},
    "uvicorn": {"serving"},
    "prometheus_client": {"serving"},
}


def module_name(path: Path) -> str:
    """The name a file is imported by."""
    folder, base = (LOBES, "es4r_toolkit.lobes") if LOBES in path.parents else (PACKAGE, "es4r_toolkit")
    parts = [*path.relative_to(folder).with_suffix("").parts]
    return ".".join([base, *(parts[:-1] if parts[-1] == "__init__" else parts)])


MODULES = {module_name(path): path for folder in (PACKAGE, LOBES) for path in sorted(folder.rglob("*.py"))}
SOURCES = [
    path
    for folder in (PACKAGE, LOBES, RECIPES, TESTS, ROOT / "templates", ROOT / "benchmarks")
    for path in sorted(folder.rglob("*.py"))
]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every module that a file imports, inside functions too, with the statement."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports by a relative name"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in MODULES else node.module), node


def part(module: str) -> str:
    names = module.split(".")
    return names[1] if len(names) > 1 else "__init__"


def rank(module: str) -> int:
    found = [index for index, parts in enumerate(RANKS) if part(module) in parts]
    assert found, f"{module} has no place among the ranks: give it one in this test"
    return found[0]


def test_the_walk_sees_the_package():
    assert {"es4r_toolkit", "es4r_toolkit.lobes.attention", "es4r_toolkit.backends.whisper"} <= set(MODULES)
    assert "es4r_toolkit.errors" in dict(imports(MODULES["es4r_toolkit.masks"]))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    for imported, node in imports(MODULES[module]):
        if imported.split(".")[0] != "es4r_toolkit":
            continue
        place = f"{module}:{node.lineno} imports {imported}"
        assert imported in MODULES, f"{place}, which is no module"
        assert rank(imported) <= rank(module), f"{place}, which stands above it"
        assert part(imported) not in NEVER.get(part(module), ()), place


def test_no_modules_import_one_another():
    # A package's __init__ that gathers its own modules is above them.
    graph = {
        module: {name for name, _ in imports(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


@pytest.mark.parametrize("module", [name for name in MODULES if part(name) == "lobes"])
def test_lobes_can_be_lifted_into_any_project(module):
    allowed = {"es4r_toolkit.masks", "es4r_toolkit.errors"}
    for imported, node in imports(MODULES[module]):
        top = imported.split(".")[0]
        own = imported in allowed or imported.startswith("es4r_toolkit.lobes")
        assert own or top == "torch" or top in sys.stdlib_module_names, f"{module}:{node.lineno} imports {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_a_framework_is_imported_only_where_it_is_wrapped(module):
    for imported, node in imports(MODULES[module]):
        holders = HOLDERS.get(imported.split(".")[0])
        if holders is not None:
            name = module.removeprefix("es4r_toolkit.")
            fit = name in holders or part(module) in holders
            assert fit, f"{module}:{node.lineno} imports {imported}, which belongs to {sorted(holders)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lobes_are_never_imported_by_their_folder(path):
    """`import lobes` would load the classes twice, and isinstance would fail between the copies."""
    for imported, node in imports(path):
        assert imported.split(".")[0] != "lobes", f"{path.name}:{node.lineno}"


def test_no_folder_shadows_the_lobes():
    assert not (PACKAGE / "lobes").exists()
    import es4r_toolkit.lobes as package

    assert [Path(folder).resolve() for folder in package.__path__] == [LOBES]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path):
    document = ast.get_docstring(tree_of(path))
    empty = path.name == "__init__.py" and not tree_of(path).body
    assert empty or document, f"{path} has no docstring"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_named_after_nothing(path):
    assert path.stem.lower() not in {"utils", "util", "helpers", "helper", "common", "misc", "tools"}


@pytest.mark.parametrize("module", MODULES)
def test_asserts_stand_in_tests_only(module):
    found = [node.lineno for node in ast.walk(tree_of(MODULES[module])) if isinstance(node, ast.Assert)]
    assert not found, f"{module} asserts in lines {found}; raise an ES4RError"


@pytest.mark.parametrize("module", MODULES)
def test_importing_a_module_sets_no_seed_and_no_threads(module):
    banned = {"manual_seed", "seed", "set_num_threads", "set_num_interop_threads", "use_deterministic_algorithms"}
    for statement in tree_of(MODULES[module]).body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for node in ast.walk(statement):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                assert called not in banned, f"{module}:{node.lineno} calls {called} when imported"


# -- YAML -------------------------------------------------------------------------------------------------------------

YAMLS = sorted([*RECIPES.rglob("*.yaml"), *(ROOT / "templates").rglob("*.yaml")])


def tagged(node: object) -> Iterator[tuple[str, object]]:
    tag = getattr(getattr(node, "tag", None), "value", None)
    if tag:
        yield tag, node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from tagged(child)


def named_by(path: Path) -> list[tuple[str, object]]:
    return list(tagged(YAML().load(path)))


def test_the_walk_sees_the_yaml_of_the_recipes():
    names = {tag for path in YAMLS for tag, _ in named_by(path)}
    assert "!new:es4r_toolkit.lobes.AffectiveDualAttention" in names
    assert "!name:torch.optim.AdamW" in names


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_names_what_exists_with_arguments_that_fit(path):
    for tag, node in named_by(path):
        kind, _, name = tag.partition(":")
        if kind not in ("!new", "!name", "!apply"):
            continue
        target = pydoc.locate(name)
        assert target is not None, f"{path.name}: there is no {name}"
        assert kind != "!new" or inspect.isclass(target), f"{path.name}: {name} is no class"
        named = dict(node) if isinstance(node, dict) else {}
        places = list(node) if isinstance(node, list) else []
        signature = inspect.signature(target)
        # What !name leaves open is given later.
        bind = signature.bind_partial if kind == "!name" else signature.bind
        try:
            bind(*places, **named)
        except TypeError as fault:
            pytest.fail(f"{path.name}: {name}: {fault}")


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_includes_files_that_exist(path):
    for tag, _ in named_by(path):
        if tag.startswith("!include:"):
            assert (path.parent / tag.removeprefix("!include:")).is_file(), f"{path.name}: {tag}"


@pytest.mark.parametrize("script", sorted(RECIPES.glob("*/train.py")), ids=lambda path: path.parent.name)
def test_a_training_script_only_calls_run_recipe(script):
    assert "es4r_toolkit.training" in dict(imports(script))
    body = [line for line in script.read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(body) < 12
    assert list((script.parent / "hparams").glob("train*.yaml")), f"{script.parent.name} has no train YAML"
    assert not [node for node in ast.walk(tree_of(script)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
