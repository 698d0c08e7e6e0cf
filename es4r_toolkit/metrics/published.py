"""Figures that others have published, read from published.yaml: to stand beside own runs, never among them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class PublishedRow:
    """One system.

    Attributes
    ----------
    system : str
    scores : dict of str to float
        By the names that `es4r evaluate` has for them.
    remark : str or None
        What is odd about them.
    """

    system: str
    scores: dict[str, float]
    remark: str | None = None


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    Attributes
    ----------
    corpus : str
        What its systems answered.
    source, url : str
        Paper and table.
    rows : tuple of PublishedRow
    """

    corpus: str
    source: str
    url: str
    rows: tuple[PublishedRow, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain values; every row says that it was published, and where."""
        mark = {"published": True, "source": self.source}
        rows = [{"system": row.system, **mark, **row.scores, "remark": row.remark} for row in self.rows]
        return {"corpus": self.corpus, "source": self.source, "url": self.url, "rows": rows}


def published_tables() -> list[PublishedTable]:
    """The tables of published.yaml.

    Example
    -------
    >>> (table,) = published_tables()
    >>> table.corpus, [row.scores["bleu1"] for row in table.rows if row.system == "ES4R (Qwen3-8B)"]
    ('AvaMERG', [0.2851])
    """
    return [_table(entry) for entry in YAML(typ="safe").load(FILE.read_text(encoding="utf-8"))]


def _table(entry: dict) -> PublishedTable:
    rows = tuple(
        PublishedRow(row["system"], dict(zip(entry["columns"], row["scores"], strict=True)), row.get("remark"))
        for row in entry["rows"]
    )
    return PublishedTable(entry["corpus"], entry["source"], entry["url"], rows)
