"""A Keystone on loopback: users log in, and who has a token asks whose another one is. No project is checked.

For clients that are run as they are. `tests/scripted_cloud.py` is for Sterna's own requests to a cloud.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LIFE = "2100-01-01T00:00:00.000000Z"
DOMAIN = {"id": "default", "name": "Default"}
Json = dict[str, Any]


class Keystone:
    """`with Keystone(users) as keystone`: `{name: (project ID, roles)}`; each has its name as password."""

    def __init__(self, users: dict[str, tuple[str, tuple[str, ...]]]) -> None:
        self.users = users
        self.endpoints: dict[str, str] = {}
        """URL by type of service, in the catalog."""
        self.tokens: dict[str, str] = {}
        """The user of each token."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v3"
        self.endpoints["identity"] = self.url

    def __enter__(self) -> Keystone:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _token(self, user: str, *, catalog: bool) -> Json:
        project, roles = self.users[user]
        body: Json = {
            "methods": ["password"],
            "expires_at": LIFE,
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "user": {"id": f"id-of-{user}", "name": user, "domain": DOMAIN},
            "project": {"id": project, "name": project, "domain": DOMAIN},
            "roles": [{"id": role, "name": role} for role in roles],
        }
        if catalog:
            body["catalog"] = [_service(kind, url) for kind, url in self.endpoints.items()]
        return {"token": body}

    def _log_in(self, wanted: Json) -> tuple[int, Json, str]:
        user = wanted["auth"]["identity"]["password"]["user"]
        name = user.get("name", "")
        if name not in self.users or user.get("password") != name:
            return 401, {"error": {"code": 401, "title": "Unauthorized", "message": "wrong password"}}, ""
        token = f"token-{len(self.tokens)}-of-{name}"
        self.tokens[token] = name
        return 201, self._token(name, catalog=True), token

    def _whose(self, asking: str, asked: str) -> tuple[int, Json, str]:
        if asking not in self.tokens:
            return 401, {"error": {"code": 401, "title": "Unauthorized", "message": "who asks?"}}, ""
        if asked not in self.tokens:
            return 404, {"error": {"code": 404, "title": "Not Found", "message": "no such token"}}, ""
        return 200, self._token(self.tokens[asked], catalog=False), asked

    def _handler(keystone) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _say(self, status: int, body: Json, token: str = "") -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                if token:
                    self.send_header("X-Subject-Token", token)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(text)

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                self._say(*keystone._log_in(json.loads(raw)))

            def do_GET(self) -> None:
                if self.path.startswith("/v3/auth/tokens"):
                    asking, asked = (self.headers.get(name, "") for name in ("X-Auth-Token", "X-Subject-Token"))
                    return self._say(*keystone._whose(asking, asked))
                link = {"rel": "self", "href": f"{keystone.url}/"}
                version = {"id": "v3.14", "status": "stable", "links": [link], "media-types": []}
                return self._say(200, {"version": version})

            def log_message(self, *args: object) -> None:
                pass

        return Handler


def _service(kind: str, url: str) -> Json:
    endpoints = [
        {"id": f"{kind}-{i}", "interface": i, "region": "RegionOne", "region_id": "RegionOne", "url": url}
        for i in ("public", "internal", "admin")
    ]
    return {"id": kind, "type": kind, "name": kind, "endpoints": endpoints}
