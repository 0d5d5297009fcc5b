"""Records what a real cloud answered, for the contract tests that run without one.

A recording is a list of requests and answers in order. Tokens never get into it; the servers' addresses are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sterna.adapters.openstack.session import Cloud

DROPPED = ("links", "volume_image_metadata", "os-vol-host-attr:host", "os-vol-tenant-attr:tenant_id", "user_id")
"""Not read by us, and different on every machine."""


class Transcript:
    """Every answer a `Cloud` got from now on, Keystone's left out."""

    def __init__(self, cloud: Cloud) -> None:
        self.lines: list[dict[str, Any]] = []
        cloud._connection.session.session.hooks["response"].append(self._hear)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.lines, indent=1) + "\n")

    def _hear(self, response: Any, **_: object) -> None:
        request = response.request
        path = request.path_url
        if path.startswith("/v3/auth") or path in ("/", "/v3", "/v3/"):
            return
        self.lines.append(
            {
                "method": request.method,
                "path": path,
                "body": json.loads(request.body) if request.body else None,
                "status": response.status_code,
                "answer": _trim(response.json()) if response.text else None,
            }
        )


def _trim(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _trim(v) for k, v in value.items() if k not in DROPPED}
    return [_trim(v) for v in value] if isinstance(value, list) else value
