"""create_app: a responder behind HTTP, as an ASGI application."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from es4r_toolkit import __version__
from es4r_toolkit.inference import NOTICE, EmpathyResponder
from es4r_toolkit.serving import documentation
from es4r_toolkit.serving.border import Border, Guard, Notes, answer
from es4r_toolkit.serving.desk import Desk
from es4r_toolkit.serving.faults import AGAIN, Fault
from es4r_toolkit.serving.forms import Reply, form_of
from es4r_toolkit.serving.limits import Limits
from es4r_toolkit.serving.metrics import Metrics
from es4r_toolkit.serving.replying import Replies
from es4r_toolkit.serving.schema import ModelOut, StateOut
from es4r_toolkit.serving.uploads import Uploads


def create_app(
    responder: EmpathyResponder,
    limits: Limits | None = None,
    border: Border | None = None,
    folder: Path | None = None,
) -> FastAPI:
    """A responder behind HTTP.

    Arguments
    ---------
    responder : EmpathyResponder
    limits : Limits, optional
    border : Border, optional
        Who may ask; clients on this machine where left out.
    folder : Path, optional
        Where recordings lie while they are decoded; a private folder of its own, gone with the server, where left out.

    Returns
    -------
    FastAPI

    Example
    -------
    >>> app = create_app(EmpathyResponder.from_hparams())
    >>> sorted(app.openapi()["paths"])
    ['/health', '/metrics', '/ready', '/v1/model', '/v1/replies']
    """
    limits, border = limits or Limits(), border or Border()
    desk = Desk(limits)
    metrics = Metrics(desk)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="es4r-serve-") as own:
            uploads = Uploads(folder or Path(own), responder.sample_rate, limits)
            app.state.replies = Replies(responder, uploads, desk, limits, metrics)
            yield
            desk.closed = True

    app = FastAPI(
        title="ES4R",
        version="1",
        description=documentation.INTRODUCTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Nothing of a request goes to a tracer that happens to be installed.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.limits = limits
    app.include_router(_routes(responder, limits, desk, metrics))
    for kind, handler in ((Fault, _refuse), (HTTPException, _refuse_http), (Exception, _fail)):
        app.add_exception_handler(kind, handler)
    # The last that is added is the first to see a request.
    app.add_middleware(Guard, border=border)
    if border.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=border.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=[*documentation.REPLY_HEADERS, "Retry-After"],
        )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*border.hosts], www_redirect=False)
    app.add_middleware(Notes, metrics=metrics)
    documentation.describe(app)
    return app


def _routes(responder: EmpathyResponder, limits: Limits, desk: Desk, metrics: Metrics) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/replies", **documentation.REPLIES)
    async def reply(request: Request) -> Response:
        """Answer a dialogue in text and speech."""
        return Reply(request.app.state.replies, form_of(request.headers.get("accept", "")))

    @routes.get(
        "/v1/model", response_model=ModelOut, **documentation.plain("What can be asked of this server.", "token")
    )
    async def model() -> dict[str, object]:
        """What can be asked of this server."""
        pipeline = responder.pipeline
        return {
            "version": __version__,
            "strategies": list(pipeline.synthesis.strategy.prosodies),
            "recognizer": getattr(pipeline.recognizer, "name", None),
            "sample_rate": pipeline.synthesis.voice.sample_rate,
            "limits": vars(limits),
            "notice": NOTICE,
        }

    @routes.get("/health", response_model=StateOut, **documentation.plain("The server lives."))
    async def health() -> dict[str, str]:
        """Whether the server lives."""
        return {"status": "ok"}

    @routes.get("/ready", response_model=StateOut, **documentation.plain("The next request is let in.", "busy"))
    async def ready() -> dict[str, str]:
        """Whether the next request for a reply is let in."""
        if desk.is_full:
            raise Fault("busy", "the server", "has no room", AGAIN)
        return {"status": "ready"}

    @routes.get("/metrics", response_class=Response, **documentation.METRICS)
    async def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=metrics.media_type)

    @routes.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(documentation.page(request.app, limits), headers=documentation.PAGE_HEADERS)

    return routes


async def _refuse(request: Request, fault: Fault) -> JSONResponse:
    return answer(request.scope, fault)


async def _refuse_http(request: Request, error: HTTPException) -> JSONResponse:
    response = answer(request.scope, Fault.of_http(error))
    response.headers.update(error.headers or {})
    return response


async def _fail(request: Request, error: Exception) -> JSONResponse:
    return answer(request.scope, Fault.internal())
