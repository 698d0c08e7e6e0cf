"""Messages of libraries that would alarm for nothing, left out where they arise."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unheard(logger: str, beginning: str) -> Iterator[None]:
    """Leave out what a library logs with this beginning, in the block alone; all else is heard.

    Arguments
    ---------
    logger : str
        The name of the library's logger.
    beginning : str
        How the message begins.

    Example
    -------
    >>> import sys
    >>> library = logging.getLogger("library")
    >>> library.addHandler(logging.StreamHandler(sys.stdout))
    >>> with unheard("library", "no fast kernel"):
    ...     library.warning("no fast kernel for this CPU")
    ...     library.warning("no memory")
    no memory
    >>> library.warning("no fast kernel for this CPU")
    no fast kernel for this CPU
    """
    source = logging.getLogger(logger)

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(beginning)

    source.addFilter(wanted)
    try:
        yield
    finally:
        source.removeFilter(wanted)
