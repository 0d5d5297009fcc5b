"""`/metrics`: this controller's metrics, for Prometheus. Needs a token, as all other routes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from sterna.api.access import needs
from sterna.api.problems import documented
from sterna.domain.access import Action
from sterna.domain.errors import NotFound
from sterna.ports.metrics import CONTENT_TYPE, Scraped

router = APIRouter(tags=["metrics"], dependencies=[needs(Action.METRICS)])
_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus's text format"}
}


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response,
            responses={**_TEXT, **documented(404, 503)})  # fmt: skip
async def metrics(request: Request) -> Response:
    """At most one second old. Also responds without the database; `sterna_database_up` is then 0. 404 if this
    controller was started without metrics."""
    scraped: Scraped | None = request.app.state.metrics
    if scraped is None:
        raise NotFound("this controller has no metrics", fix="start it with `sterna controller`")
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(await scraped.text(), headers=headers, media_type=CONTENT_TYPE)
