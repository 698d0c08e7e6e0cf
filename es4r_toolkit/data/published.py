"""Files of corpora as their owners publish them: found by name, read whatever their encoding, looked into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from es4r_toolkit.data import audio
from es4r_toolkit.data.records import FieldError
from es4r_toolkit.errors import AudioError, ConfigError, DialogueError

Item = TypeVar("Item")
Result = TypeVar("Result")

# What Windows-1252 has where Latin-1 has control characters: texts that were taken for Latin-1 once hold the latter.
_WINDOWS = {code: bytes([code]).decode("cp1252", errors="ignore") or " " for code in range(0x80, 0xA0)}


def require_folder(path: Path) -> None:
    """Raise ConfigError where the folder of a corpus is none."""
    if not path.is_dir():
        raise ConfigError("data_folder", f"{path} is no folder", "name the folder of the corpus: --data_folder=DATA")


def find(root: Path, name: str) -> Path | None:
    """The file or folder of a name in all of a folder; None where there is none.

    Raises
    ------
    ConfigError
        If there are several, and none of them stands in the folder itself.
    """
    if (root / name).exists():
        return root / name
    found = sorted(root.rglob(name))
    if len(found) > 1:
        raise ConfigError("data_folder", f"holds {name} {len(found)} times", f"name one, such as {found[0]}")
    return found[0] if found else None


def text_of(path: Path) -> str:
    r"""The text of a file in UTF-8 or else Windows-1252, also where one was taken for the other.

    Raises
    ------
    DialogueError
        If it cannot be read.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "said.txt")
    ...     for data in (b"I\x92m fine", "I\x92m fine".encode(), "I’m fine".encode()):
    ...         _ = path.write_bytes(data)
    ...         print(text_of(path))
    I’m fine
    I’m fine
    I’m fine
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DialogueError(path, f"cannot be read ({error.strerror})", "take the corpus as published") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.translate(_WINDOWS)


def recording_fault(path: Path, limits: audio.AudioLimits = audio.DEFAULT_LIMITS) -> FieldError | None:
    """Why a recording cannot be used, from its header; None where it can."""
    try:
        audio.probe(path, limits)
    except AudioError as error:
        return FieldError(path.name, error.problem, error.mend)
    return None


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, description: str, unit: str
) -> Iterator[Result]:
    """Results in the order of the items, from several threads, with a bar on a terminal.

    What is waiting is given up where one fails or the user interrupts.
    """
    pool = ThreadPoolExecutor(workers)
    try:
        yield from tqdm(pool.map(function, items), total=len(items), desc=description, unit=unit, disable=None)
    finally:
        pool.shutdown(cancel_futures=True)
