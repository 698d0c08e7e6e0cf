"""What the page of es4r demo keeps, and how it is asked without a browser."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path


def uploads() -> list[Path]:
    """Files in the page's folder for uploads."""
    return [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]


def ask(address: str, path: str, body: object = None, **headers: str) -> bytes:
    """What comes back; a body that is no bytes is sent as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json", **headers})
    return urllib.request.urlopen(request, timeout=60).read()
