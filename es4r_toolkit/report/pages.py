"""From a template to a page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from es4r_toolkit.errors import ConfigError


def render_template(name: str, filters: Mapping[str, Callable] | None = None, **values: object) -> str:
    """A page as a string; every text is escaped, and a value that the template lacks is an error."""
    # Without block trimming the page would carry thousands of blank lines.
    pages = Environment(
        loader=PackageLoader("es4r_toolkit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(filters or {})
    return pages.get_template(name).render(**values)


def write_page(path: str | Path, page: str) -> Path:
    """Write a page; its folder is made where it is missing.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A text from outside may hold half a surrogate pair, which UTF-8 cannot; it becomes a question mark.
        path.write_bytes(page.encode("utf-8", errors="replace"))
    except OSError as fault:
        raise ConfigError(
            path, f"cannot be written ({fault.strerror})", "choose another place for the report"
        ) from fault
    return path
