"""A small HTTP server on loopback that answers like a cloud: Keystone built in, the rest by a test's script.

Real answers are recorded in JSON files (`tests/unit/adapters/openstack/recorded/`), with `CLOUD` where the real
server wrote its own address. Used by the contract tests of the providers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN_LIFE = "2100-01-01T00:00:00.000000Z"


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    """With the query, without the service's prefix: `/v3/attachments?...`."""
    body: Any
    headers: dict[str, str]


@dataclass
class Answer:
    """What to say. `lost`: the change is made (`then` is called), then the connection is cut without a word."""

    status: int = 200
    body: Any = None
    lost: bool = False
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[Asked], Answer | None]
"""None: 404."""


class ScriptedCloud:
    """`with ScriptedCloud(script) as cloud`: `cloud.auth_url` for Keystone; every service is here too."""

    services = {"volumev3": "/volume/v3", "network": "/network", "image": "/image"}

    def __init__(self, script: Script, *, port: int = 0) -> None:
        self.script = script
        self.asked: list[Asked] = []
        """Requests to services, Keystone's left out."""
        self.logins = 0
        self.revoked = 0
        """Tokens up to this number are answered 401."""
        self.token_life = TOKEN_LIFE
        self.users: dict[str, dict[str, Any]] = {}
        """Tokens that Keystone is asked about, and what it says of them."""
        self.page: bytes | None = None
        """What a proxy in front of it says with 200 instead."""
        self.roles = ("admin", "service")
        self.questions = 0
        """How often it was."""
        self.refuse_login: Answer | None = None
        self.before_login: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def auth_url(self) -> str:
        return f"{self.url}/identity/v3"

    def changes(self) -> list[tuple[str, str]]:
        """(method, path) of every request that was no GET."""
        return [(a.method, a.path) for a in self.asked if a.method != "GET"]

    def __enter__(self) -> ScriptedCloud:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()

    # ------------------------------------------------------------ inside

    def _answer(self, asked: Asked) -> Answer:
        with self._lock:
            if asked.path.startswith("/identity"):
                return self._keystone(asked)
            told = asked.headers.get("x-auth-token", "")
            if told and int(told.removeprefix("token-")) <= self.revoked:
                return Answer(401, {"error": {"code": 401, "message": "The request you have made requires auth"}})
            if (root := self._version_root(asked.path)) is not None:
                return root
            self.asked.append(asked)
            for prefix in ("/volume", "/network", "/image"):
                if asked.path.startswith(prefix + "/"):
                    asked.path = asked.path.removeprefix(prefix)
            return self.script(asked) or Answer(404, {"itemNotFound": {"code": 404, "message": "not here"}})

    def _keystone(self, asked: Asked) -> Answer:
        self.before_login()
        if asked.method == "GET" and asked.path.startswith("/identity/v3/auth/tokens"):
            self.questions += 1
            if int(asked.headers["x-auth-token"].removeprefix("token-")) <= self.revoked:
                return Answer(401, {"error": {"code": 401, "message": "The request you have made requires auth"}})
            found = self.users.get(asked.headers["x-subject-token"])
            return Answer(200, {"token": found}) if found is not None else Answer(404, {"error": {"code": 404}})
        if asked.method == "GET":
            version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": self.auth_url + "/"}]}
            return Answer(200, {"version": version})
        if self.refuse_login is not None:
            return self.refuse_login
        self.logins += 1
        catalog = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [
                    {
                        "interface": i,
                        "region": "RegionOne",
                        "region_id": "RegionOne",
                        "url": self.url + path,
                        "id": i,
                    }
                    for i in ("internal", "public", "admin")
                ],
            }
            for kind, path in self.services.items()
        ]
        token = {
            "methods": ["password"],
            "expires_at": self.token_life,
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "user": {"id": "u", "name": "sterna", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "service", "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": name, "name": name} for name in self.roles],
            "catalog": catalog,
        }
        return Answer(201, {"token": token}, headers={"X-Subject-Token": f"token-{self.logins}"})

    def _version_root(self, path: str) -> Answer | None:
        link = {"rel": "self", "href": self.url + path}
        if path.rstrip("/") in ("/volume", "/volume/v3"):
            version = {"id": "v3.0", "status": "CURRENT", "version": "3.71", "min_version": "3.0", "links": [link]}
            version["links"] = [{"rel": "self", "href": f"{self.url}/volume/v3/"}]
            return Answer(200, {"versions": [version]})
        if path.rstrip("/") == "/network":
            link = {"rel": "self", "href": f"{self.url}/network/v2.0/"}
            return Answer(200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]})
        if path.rstrip("/") == "/image":
            link = {"rel": "self", "href": f"{self.url}/image/v2/"}
            return Answer(300, {"versions": [{"id": "v2.9", "status": "CURRENT", "links": [link]}]})
        return None

    def _handler(cloud) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                raw = self.rfile.read(length)
                headers = {k.lower(): v for k, v in self.headers.items()}
                answer = cloud._answer(Asked(self.command, self.path, json.loads(raw) if raw else None, headers))
                if answer.lost:
                    self.close_connection = True
                    return
                self.close_connection = True  # or `stop` would leave connections that go on answering
                text = b"" if answer.body is None else json.dumps(answer.body).replace("CLOUD", cloud.url).encode()
                if cloud.page is not None and "x-subject-token" in headers:
                    answer, text = Answer(200), cloud.page
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = _serve

            def log_message(self, *args: object) -> None:
                pass

        return Handler
