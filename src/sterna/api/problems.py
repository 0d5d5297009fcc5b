"""Errors as RFC 9457 problem details: one table from error class to HTTP status, and every reason in a list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from sterna.domain.errors import (
    BadRequest,
    Cancelled,
    Conflict,
    Forbidden,
    NotFound,
    Permanent,
    Refused,
    SternaError,
    StorageSilent,
    Temporary,
    Unauthenticated,
    Undelivered,
    Unknown,
    Unreachable,
)
from sterna.domain.model import Refusal

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_FASTAPI_S = {"$ref": "#/components/schemas/HTTPValidationError"}
STATUS: dict[type[SternaError], HTTPStatus] = {
    BadRequest: HTTPStatus.BAD_REQUEST,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Cancelled: HTTPStatus.CONFLICT,
    Refused: HTTPStatus.UNPROCESSABLE_ENTITY,
    StorageSilent: HTTPStatus.SERVICE_UNAVAILABLE,
    Undelivered: HTTPStatus.SERVICE_UNAVAILABLE,
    Unreachable: HTTPStatus.SERVICE_UNAVAILABLE,
    Temporary: HTTPStatus.SERVICE_UNAVAILABLE,
    Unknown: HTTPStatus.GATEWAY_TIMEOUT,
    Permanent: HTTPStatus.INTERNAL_SERVER_ERROR,
    SternaError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""By the nearest class of the error."""


class Reason(BaseModel):
    """One reason, and how to fix it."""

    code: str = Field(
        description="Stable: scripts can rely on it. docs/reference/refusals.md lists the codes of refusals.",
        examples=["memory-short"],
    )
    message: str = Field(examples=["host2 has 200 MiB of memory free, web1 needs 1024 MiB"])
    fix: str = Field(default="", examples=["move or stop another VM there, or choose another host"])


class Problem(BaseModel):
    """RFC 9457 problem details, with all reasons at once."""

    type: str = Field(examples=["urn:sterna:problem:refused"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str
    instance: str = Field(description="The path of the request.", examples=["/v1/migrations"])
    reasons: list[Reason]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: these statuses answer with a problem."""
    return {s: {"model": Problem, "description": HTTPStatus(s).phrase} for s in statuses}


def complete(document: dict[str, Any]) -> None:
    """Add to an OpenAPI document what holds for all routes: the media type of problems, and the statuses of checks
    that come before a route (of the body, and of the user, whose record may be out of reach).
    """
    for operation in (one for methods in document["paths"].values() for one in methods.values()):
        responses = operation["responses"]
        before = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE) if "requestBody" in operation else ()
        for status in (*before, *((HTTPStatus.SERVICE_UNAVAILABLE,) if "security" in operation else ())):
            responses.setdefault(str(int(status)), {"description": status.phrase})
        for response in (one for status, one in responses.items() if int(status) >= HTTPStatus.BAD_REQUEST):
            content = response.get("content", {})
            own = {kind: body for kind, body in content.items() if body["schema"] not in (_PROBLEM, _FASTAPI_S)}
            response["content"] = own | {MEDIA_TYPE: {"schema": _PROBLEM}}
        operation["responses"] = dict(sorted(responses.items()))
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)


def status_of(error: SternaError) -> HTTPStatus:
    """The HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def _answer(request: Request, status: int, code: str, detail: str, reasons: list[Reason]) -> JSONResponse:
    problem = Problem(
        type=f"urn:sterna:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        reasons=reasons,
    )
    return JSONResponse(problem.model_dump(), status, media_type=MEDIA_TYPE)


async def answer(request: Request, error: Exception) -> JSONResponse:
    """To an error of ours."""
    if not isinstance(error, SternaError):  # pragma: no cover - registered for this class only
        raise error
    refusals: tuple[Refusal, ...] = getattr(error, "refusals", ())
    reasons = [Reason(**r.model_dump()) for r in refusals]
    reasons = reasons or [Reason(code=error.code, message=error.message, fix=error.fix)]
    return _answer(request, status_of(error), error.code, error.message, reasons)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):  # pragma: no cover - registered for this class only
        raise error
    reasons = []
    for wrong in error.errors():
        where = ".".join(str(part) for part in wrong["loc"])
        reasons.append(Reason(code="invalid", message=f"{where}: {wrong['msg']}", fix=f"see {where} in /docs"))
    detail = "; ".join(r.message for r in reasons)
    return _answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", detail, reasons)


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):  # pragma: no cover - registered for this class only
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "-")
    message = f"{request.method} {request.url.path}: {error.detail}"
    reason = Reason(code=code, message=message, fix="see /docs for the routes of this API")
    response = _answer(request, error.status_code, code, message, [reason])
    response.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return response


def _methods(request: Request) -> set[str]:
    """Those of all routes with the request's path; the framework names those of the first one."""
    routes: Sequence[Route] = request.app.state.routes
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    least = min((len(route.param_convertors) for route in here), default=0)  # `preview` is no id of an operation
    return {method for route in here if len(route.param_convertors) == least for method in route.methods or ()}


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed unexpectedly", path=request.url.path, exc_info=error)
    reason = Reason(
        code="internal", message="this is a bug in Sterna", fix="see the controller's log, and report it"
    )
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", reason.message, [reason])


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[JSONResponse]]] = {
    SternaError: answer,
    RequestValidationError: _invalid,
    HTTPException: _http,
    Exception: _bug,
}


def install(app: FastAPI, routes: Sequence[Route]) -> None:
    """Every error of `app` becomes a problem, those of unknown routes and of validation as well. `routes`: all."""
    app.state.routes = routes
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)
