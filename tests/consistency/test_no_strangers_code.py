"""Nothing runs what a file says: what could is banned by name in every module, but for a list with reasons."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("es4r_toolkit", "lobes", "recipes", "templates", "benchmarks")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]

# What runs code, or a program, or reads a format that does, or unpacks paths of a stranger's choice, or sends.
BANNED = (
    *("eval", "exec", "compile", "__import__", "runpy", "code", "codeop", "pydoc", "importlib", "imp", "pty", "ctypes"),
    *("os.system", "os.popen", "os.execv", "os.execve", "os.execvp", "os.spawnl", "os.spawnv", "subprocess"),
    *("pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "pandas.read_pickle"),
    *("torch.load", "torch.jit", "torch.hub", "torch.package", "torch.export", "numpy.load", "scipy.io.loadmat"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader"),
    *("ruamel.yaml.Loader", "ruamel.yaml.load", "hyperpyyaml", "speechbrain.inference", "speechbrain.utils.fetching"),
    *("zipfile", "tarfile", "shutil.unpack_archive", "gzip", "bz2", "lzma"),
    *("socket", "urllib", "http", "ftplib", "smtplib", "requests", "httpx", "httpx2", "aiohttp", "websockets"),
    *("webbrowser", "nltk.download", "huggingface_hub", "wandb", "mlflow", "comet_ml", "sentry_sdk"),
)
# Parts of those that run nothing and go nowhere.
HARMLESS = (
    *("huggingface_hub.errors", "huggingface_hub.constants", "pickle.UnpicklingError", "zipfile.BadZipFile"),
    *("importlib.metadata", "importlib.resources", "importlib.util.find_spec", "http.HTTPStatus", "urllib.parse"),
)
ALLOWED = {
    ("es4r_toolkit/hparams.py", "hyperpyyaml"): "the one door for YAML; its loader knows no Python objects",
    ("es4r_toolkit/backends/checkpoints.py", "torch.load"): "of published checkpoints to convert: weights only",
    ("es4r_toolkit/backends/checkpoint_convert.py", "huggingface_hub"): "downloads what the user names",
    ("es4r_toolkit/checkpointing.py", "torch.load"): "of a run's own state: weights only",
    ("es4r_toolkit/backends/mos.py", "torch.jit"): "a program, run where --trust-remote-code is said",
    ("es4r_toolkit/backends/kokoro.py", "importlib"): "a module of the package kokoro, by a name that stands there",
    ("es4r_toolkit/backends/espeak_worker.py", "ctypes"): "espeak-ng's library, from its wheel",
    ("es4r_toolkit/backends/espeak_process.py", "subprocess"): "espeak_worker.py",
    ("es4r_toolkit/backends/pocketsphinx_asr.py", "subprocess"): "pocketsphinx_worker.py",
    ("es4r_toolkit/backends/bertscore.py", "huggingface_hub"): "downloads what the user names",
    ("es4r_toolkit/backends/styletts2.py", "huggingface_hub"): "downloads what the model's YAML names",
    ("es4r_toolkit/inference/loading.py", "huggingface_hub"): "downloads what the user names",
    ("es4r_toolkit/demo/models.py", "huggingface_hub"): "downloads what the user names",
    ("es4r_toolkit/metrics/judge/endpoint.py", "httpx2"): "the judge's endpoint, which the user names",
    ("es4r_toolkit/serving/server.py", "socket"): "es4r serve listens where the user says",
    ("es4r_toolkit/demo/serving.py", "socket"): "the name of this machine, by which visitors may call it",
    ("recipes/AffectProbe/demo.py", "subprocess"): "train.py",
    ("recipes/AffectProbe/study.py", "subprocess"): "train.py, once a variant",
    ("recipes/MELD/prepare.py", "subprocess"): "ffmpeg, without a shell",
    ("benchmarks/evaluation.py", "subprocess"): "es4r evaluate",
    ("benchmarks/feature_store.py", "subprocess"): "itself, timed",
    ("benchmarks/soak_responder.py", "ctypes"): "malloc_trim of the C library, to see what is held",
    ("benchmarks/serving.py", "subprocess"): "es4r serve",
    ("benchmarks/serving.py", "httpx2"): "that server, on this machine",
}
# Keywords that would open what is closed, wherever they are given.
CLOSED = {
    "shell": False,
    "allow_pickle": False,
    "weights_only": True,
    "trust_remote_code": False,
    "use_safetensors": True,
}
NEEDED = {"torch.load": "weights_only"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def names(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Every name that a file imports or uses, by the module that it comes from; methods of objects are not names."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {(one.asname or one.name.split(".")[0]): (one.asname and one.name) or "" for one in node.names}
            yield from ((one.name, node) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            aliases |= {(one.asname or one.name): f"{node.module}.{one.name}" for one in node.names}
            yield from ((f"{node.module}.{one.name}", node) for one in node.names)
    parts: set[ast.AST] = set()
    # The whole of a.b.c comes before its parts.
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts.add(node.value)
        if isinstance(node, ast.Name | ast.Attribute) and node not in parts and (name := written(node)):
            first, dot, rest = name.partition(".")
            if first in aliases or (not dot and first in ("eval", "exec", "compile", "__import__")):
                yield (aliases.get(first) or first) + dot + rest, node


def written(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    base = written(node.value) if isinstance(node, ast.Attribute) else None
    return base and f"{base}.{node.attr}"


def banned(name: str) -> str | None:
    if is_in(name, HARMLESS):
        return None
    return next((one for one in BANNED if is_in(name, [one])), None)


def is_in(name: str, modules: Iterable[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in modules)


def found(tree: ast.Module) -> set[str]:
    return {one for name, _ in names(tree) if (one := banned(name))}


CAUGHT = {
    "eval('1')": "eval",
    "import os\nos.system('x')": "os.system",
    "from os import system as run\nrun('x')": "os.system",
    "import numpy as np\nnp.load('x')": "numpy.load",
    "def f():\n    import pickle": "pickle",
    "import torch\nmodel = torch.load": "torch.load",
    "from urllib.request import urlopen": "urllib",
}


@pytest.mark.parametrize("source", CAUGHT)
def test_the_walk_sees_what_is_banned(source):
    assert found(ast.parse(source)) == {CAUGHT[source]}


def test_the_walk_passes_over_methods_of_the_same_name_and_harmless_parts():
    assert not found(ast.parse("import torch\nmodel.eval()\ntorch.nn.Module().eval()\nself.load(requests)"))
    assert not found(ast.parse("from importlib.util import find_spec\nimport urllib.parse\nurllib.parse.quote('a')"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_reads_or_sends_what_is_not_named_here(path):
    place = str(path.relative_to(ROOT))
    strange = sorted(one for one in found(tree_of(path)) if (place, one) not in ALLOWED)
    assert not strange, f"{place} uses {', '.join(strange)}: take another way, or name it in ALLOWED with its reason"


def test_every_exception_is_in_use():
    used = {(str(path.relative_to(ROOT)), one) for path in SOURCES for one in found(tree_of(path))}
    assert sorted(ALLOWED.keys() - used) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_call_opens_what_is_closed(path):
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.Call):
            continue
        given = {one.arg: one.value for one in node.keywords}
        for keyword, closed in CLOSED.items():
            if isinstance(value := given.get(keyword), ast.Constant):
                assert value.value is closed, f"{path}:{node.lineno}: {keyword}={value.value}"
        needed = NEEDED.get(written(node.func) or "")
        assert needed is None or needed in given, f"{path}:{node.lineno}: say {needed}"


def test_importing_the_package_starts_nothing_and_goes_nowhere():
    code = """
import importlib, pkgutil, sys
touched = []
sys.addaudithook(lambda event, given: touched.append(event) if event.startswith(
    ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "urllib.", "http.")) else None)
import es4r_toolkit, es4r_toolkit.lobes
for package in (es4r_toolkit, es4r_toolkit.lobes):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        # The demo's page needs gradio, which is imported when it is served.
        if not module.name.endswith("__main__") and not module.name.startswith("es4r_toolkit.demo."):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as missing:
                # An extra that is not installed here.
                assert not missing.name.startswith("es4r_toolkit"), missing
assert "es4r_toolkit.training" in sys.modules and "es4r_toolkit.backends.styletts2" in sys.modules
print(touched)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
