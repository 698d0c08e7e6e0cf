"""What schemathesis sends as recordings: mostly whole ones, so that requests get as far as the model."""

from __future__ import annotations

import base64

import schemathesis
from hypothesis import strategies
from serving import recording

WHOLE, CUT = recording(0, 0.2), recording(1, 0.2)[:-100]

content = strategies.one_of(*[strategies.just(WHOLE)] * 6, strategies.just(CUT), strategies.binary(max_size=200))
schemathesis.openapi.format("byte", content.map(lambda file: base64.b64encode(file).decode("ascii")))
schemathesis.openapi.format("binary", content)
