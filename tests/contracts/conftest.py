"""Back ends are tried without a network."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_network(offline):
    """No back end opens a socket where its checkpoint is a local folder."""
