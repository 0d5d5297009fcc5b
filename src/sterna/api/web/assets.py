"""The files that pages are made of: ours, and those vendored from npm.

Their addresses have their hashes, so a browser keeps them until they change.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Response

from sterna.api.access import needs
from sterna.domain.access import Action

FOLDER = Path(__file__).parent / "static"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
router = APIRouter(include_in_schema=False, dependencies=[needs(Action.SIGN_IN)])
ADDRESSES: dict[str, str] = {}
"""File name -> its address."""


def _serve(file: Path) -> None:
    content, kind = file.read_bytes(), KINDS[file.suffix]
    ADDRESSES[file.name] = f"/static/{sha256(content).hexdigest()[:16]}/{file.name}"

    @router.get(ADDRESSES[file.name], name=file.name)
    async def asset() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)


for _file in sorted(one for one in FOLDER.rglob("*") if one.suffix in KINDS):
    _serve(_file)
