"""Files that others name, looked at before they are read."""

from __future__ import annotations

import stat
from pathlib import Path

from es4r_toolkit.errors import ES4RError


def size_of_file(path: Path, error: type[ES4RError], mend: str = "correct the path") -> int:
    """Bytes that a file holds.

    Arguments
    ---------
    path : Path
    error : type of ES4RError
        What is raised.
    mend : str
        What to do where it is missing.

    Raises
    ------
    ES4RError
        If it does not exist, cannot be reached, or is a folder, a pipe or a device.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise error(path, "does not exist", mend) from None
    except OSError as fault:
        raise error(path, f"cannot be reached ({fault.strerror})", "correct the path") from None
    if not stat.S_ISREG(found.st_mode):
        raise error(path, "is not a file", "give the path of one file")
    return found.st_size
