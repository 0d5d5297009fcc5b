"""Errors in the shape of Nova's, `{"itemNotFound": {"code": 404, "message": ...}}`, with Sterna's sentences.

Never problem details: clients of the Compute API would show no message.
"""

from __future__ import annotations

from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sterna.api.problems import status_of
from sterna.controller import reasons
from sterna.domain.errors import Refused, SternaError
from sterna.domain.model import Refusal

log = structlog.get_logger(__name__)

NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}
OTHER = "computeFault"
NOT_HERE = "there is nothing of this name here, in this version of the API"
_STATE = frozenset(
    {"vm-not-running", "vm-paused", "vm-job-active", reasons.UNDER_WAY, reasons.NOVA_OWNED, reasons.TWICE}
)
"""Refusals because of the state the server is in."""
_SILENT = frozenset({reasons.NOVA_SILENT, reasons.CHECK_FAILED})
"""Because somebody has not answered: the same request may be accepted later."""


def fault(status: int, message: str) -> JSONResponse:
    """The answer."""
    return JSONResponse({NAMES.get(status, OTHER): {"code": status, "message": message}}, status)


def sentence(error: SternaError) -> str:
    """All its reasons with what would fix each, in one text: clients print all of it, and nothing else."""
    refusals: tuple[Refusal, ...] = getattr(error, "refusals", ())
    said = [(r.message, r.fix) for r in refusals] or [(error.message, error.fix)]
    return " ".join(_closed(message) + (f" Fix: {_closed(fix)}" if fix else "") for message, fix in said)


def _closed(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def status_for(error: SternaError) -> int:
    """Nova's for this kind of error."""
    if isinstance(error, Refused):
        codes = {r.code for r in error.refusals}
        if codes and codes <= _SILENT:
            return HTTPStatus.SERVICE_UNAVAILABLE
        return HTTPStatus.CONFLICT if codes & _STATE else HTTPStatus.BAD_REQUEST
    return status_of(error)


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, SternaError):  # pragma: no cover - registered for this class only
        raise error
    return fault(status_for(error), sentence(error))


async def _http(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):  # pragma: no cover - registered for this class only
        raise error
    if error.status_code in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED) and error.detail in (
        HTTPStatus.NOT_FOUND.phrase,
        HTTPStatus.METHOD_NOT_ALLOWED.phrase,
    ):
        return fault(HTTPStatus.NOT_FOUND, NOT_HERE)  # as Nova, which knows no method that is not allowed
    return fault(error.status_code, error.detail)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed unexpectedly", path=request.url.path, exc_info=error)
    return fault(HTTPStatus.INTERNAL_SERVER_ERROR, "this is a bug in Sterna: see the controller's log")


def install(app: FastAPI) -> None:
    """Every error of `app` becomes one of these."""
    app.add_exception_handler(SternaError, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)
