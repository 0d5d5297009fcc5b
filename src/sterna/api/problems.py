"""Errors as RFC 9457 problem details: one table from error class to HTTP status, and every reason in a list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

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
    """One reason, and what would fix it."""

    code: str = Field(
        description="Stable, for scripts. docs/reference/refusals.md lists those of refusals.",
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
    return JSONResponse(problem.model_dump(), status, media_type="application/problem+json")


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
    reason = Reason(code=code, message=message, fix="/docs lists what there is")
    response = _answer(request, error.status_code, code, message, [reason])
    response.headers.update(error.headers or {})
    return response


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed unexpectedly", path=request.url.path, exc_info=error)
    reason = Reason(
        code="internal", message="this is a bug in Sterna", fix="see the controller's log, and report it"
    )
    return _answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", reason.message, [reason])


def install(app: FastAPI) -> None:
    """Every error of `app` becomes a problem, unknown routes and validation errors included."""
    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[JSONResponse]]] = {
        SternaError: answer,
        RequestValidationError: _invalid,
        HTTPException: _http,
        Exception: _bug,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
