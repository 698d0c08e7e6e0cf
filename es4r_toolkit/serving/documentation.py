"""What the API says of itself: the OpenAPI schema, and a page of it that needs no network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import soundfile
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from es4r_toolkit.inference import NOTICE
from es4r_toolkit.report.pages import render_template
from es4r_toolkit.serving.faults import KINDS, Fault
from es4r_toolkit.serving.limits import Limits
from es4r_toolkit.serving.schema import FaultOut, ReplyOut, SpokenDialogue, UploadedDialogue

INTRODUCTION = "A spoken dialogue goes in; an empathetic reply comes out, in text and speech. " + NOTICE
REF = "#/components/schemas/{model}"
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
LONGEST_SHOWN = 60  # characters of base64 on the page
EVENTS = """\
event: transcript
data: {"turn": 0, "role": "speaker", "text": "I lost my job.", "source": "transcript"}

event: strategy
data: {"strategy": "comfort", "strategy_weights": {...}, "energies": [...], "prosody": {...}, "notice": "..."}

event: text
data: {"text": "I hear"}

event: audio
data: {"text": "I hear how hard that is.", "sample_rate": 24000, "audio": "UklGR..."}

event: timings
data: {"waiting": 0.0, "decoding": 0.01, ..., "to_first_audio": 0.2}

event: end
data: {"text": "I hear how hard that is.", "strategy": "comfort", ...}

"""


def _beep() -> str:
    """A quarter of a second of sound, so that the example can be sent as it stands."""
    buffer = io.BytesIO()
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(2000) / 8000)
    soundfile.write(buffer, tone, 8000, format="WAV", subtype="ULAW")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _faults(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The responses of some codes; those of one status stand together."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = KINDS[code]
        response = found.setdefault(kind.status, {"description": "", "content": {}})
        response["description"] = f"{response['description']} {kind.meaning}".strip()
        if code == "host":
            response["content"]["text/plain"] = {"schema": {"type": "string"}}
            continue
        response["model"] = FaultOut
        examples = response["content"].setdefault("application/json", {"examples": {}})["examples"]
        examples[code] = {"value": Fault(code, *kind.example).as_dict()}
        if code == "busy":
            response["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return found


_TURNS = [
    {"role": "speaker", "text": "I lost my job."},
    {"role": "listener", "text": "Oh no. How are you?"},
    {"role": "speaker", "text": "It gets worse every day."},
]
REPLY_HEADERS = {
    "ES4R-Text": {"description": "The reply, percent-encoded UTF-8.", "schema": {"type": "string"}},
    "ES4R-Cut-Off": {
        "description": "Whether the reply is as long as the model may write.",
        "schema": {"type": "boolean"},
    },
    "ES4R-Strategy": {"description": "How it is spoken.", "schema": {"type": "string"}},
    "ES4R-Notice": {"description": NOTICE, "schema": {"type": "string"}},
    "Server-Timing": {"description": "Milliseconds by stage.", "schema": {"type": "string"}},
}


def plain(good: str, *codes: str) -> dict[str, Any]:
    """What a route without a body says of itself."""
    return {"responses": {200: {"description": good}, **_faults("host", "origin", *codes)}}


METRICS = plain("Prometheus's text format.", "token")
METRICS["responses"][200]["content"] = {"text/plain": {"schema": {"type": "string"}}}
REPLIES = {
    "responses": {
        200: {
            "description": "The reply, in the form that Accept asks for.",
            "headers": REPLY_HEADERS,
            "content": {
                "application/json": {"schema": {"$ref": REF.format(model="ReplyOut")}},
                "audio/wav": {"schema": {"type": "string", "format": "binary"}},
                "text/event-stream": {"schema": {"type": "string"}, "example": EVENTS},
            },
        },
        **_faults(*(code for code in KINDS if code not in ("not_found", "method"))),
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": "Accept",
                "in": "header",
                "required": False,
                "description": "application/json, audio/wav or text/event-stream.",
                "schema": {"type": "string", "default": "application/json"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": REF.format(model="SpokenDialogue")},
                    "example": {
                        "turns": [{**turn, "audio": _beep()} for turn in _TURNS],
                        "options": {"strategy": "comfort"},
                    },
                },
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["dialogue", "audio"],
                        "properties": {
                            "dialogue": {"$ref": REF.format(model="UploadedDialogue")},
                            "audio": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        },
                    },
                    "encoding": {"dialogue": {"contentType": "application/json"}},
                },
            },
        },
    },
}


def describe(app: FastAPI) -> None:
    """Let an application's schema hold what its routes read and write by themselves."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            models = [(model, "validation") for model in (SpokenDialogue, UploadedDialogue, ReplyOut)]
            _, found = models_json_schema(models, ref_template=REF)
            whole["components"]["schemas"] |= found["$defs"]
            app.openapi_schema = whole
        return app.openapi_schema

    app.openapi = schema


def page(app: FastAPI, limits: Limits) -> str:
    """The schema as an HTML page."""
    schema = app.openapi()
    routes = [
        {"method": method.upper(), "path": path, "says": operation["description"], "responses": operation["responses"]}
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    return render_template(
        "serving.html",
        {"json": _as_json},
        title="ES4R: the HTTP API",
        introduction=app.description,
        routes=routes,
        schemas=schema["components"]["schemas"],
        limits=asdict(limits),
        events=EVENTS,
        faults=[(code, kind, Fault(code, *kind.example).as_dict()) for code, kind in KINDS.items()],
        example=REPLIES["openapi_extra"]["requestBody"]["content"]["application/json"]["example"],
    )


def _as_json(value: object) -> str:
    return json.dumps(_shortened(value), indent=2, ensure_ascii=False)


def _shortened(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _shortened(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_shortened(entry) for entry in value]
    return f"{value[:LONGEST_SHOWN]}..." if isinstance(value, str) and len(value) > 2000 else value
