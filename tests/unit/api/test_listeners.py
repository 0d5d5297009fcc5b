"""Where a controller listens, whom it lets in there, and what it refuses to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from sterna.api import listeners, peers
from sterna.api import server as api_server
from sterna.api.access import AccessRules
from sterna.api.app import create_app
from sterna.api.listeners import access_rules_of, listening, tls_of
from sterna.api.peers import Peer, PeerRoles, peer_of, user_name
from sterna.api.server import Server
from sterna.config import ControllerSettings
from sterna.config.access import AccessSettings
from sterna.controller.intents.users import FixedToken
from sterna.domain.access import UserRole
from sterna.domain.errors import BadRequest, Conflict, Permanent, Unauthenticated

from ..controller.conftest import World, world  # noqa: F401 - a fixture
from .clients import ACCESS, bearing


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/controller.db"


def settings(listen: str = "", **access: object) -> ControllerSettings:
    given = AccessSettings.model_validate({"socket": ""} | access)
    return ControllerSettings.model_construct(listen=listen, access=given)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ------------------------------------------------------------ the Unix socket


def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **ids: int) -> None:
    file = tmp_path / "group"
    file.write_text("".join(f"{name}:x:{gid}:\n" for name, gid in ids.items()))
    monkeypatch.setattr(peers, "_GROUP", file)


def test_the_socket_is_the_groups_and_goes_with_the_controller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(tmp_path, monkeypatch, sterna=54321)
    path = tmp_path / "run" / "api.sock"
    with listening(settings(socket=str(path)), None) as (made,):
        assert made.getsockname() == str(path)
        assert (mode(path), path.stat().st_gid, mode(path.parent)) == (0o660, 54321, 0o755)
    assert not path.exists()


def test_without_that_group_it_is_its_owners_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(tmp_path, monkeypatch, other=54321)
    path = tmp_path / "api.sock"
    with capture_logs() as logs, listening(settings(socket=str(path)), None):
        assert mode(path) == 0o600
    assert any("the group does not exist" in line["event"] for line in logs)


def test_what_a_dead_controller_has_left_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.create_server(str(path), family=socket.AF_UNIX):
        with pytest.raises(Conflict, match="another controller"), listening(settings(socket=str(path)), None):
            pass
        assert path.exists()
    with listening(settings(socket=str(path)), None):
        pass
    path.write_text("a letter")
    with pytest.raises(Conflict, match="not a socket"), listening(settings(socket=str(path)), None):
        pass
    assert path.read_text() == "a letter"


def test_a_controller_that_hangs_on_the_socket_is_not_taken_for_a_fault_of_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with contextlib.ExitStack() as stack:
        stack.enter_context(socket.create_server(str(path), family=socket.AF_UNIX, backlog=0))
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))  # nobody accepts it, and no second one waits
        with pytest.raises(Conflict, match="does not answer"), listening(settings(socket=str(path)), None):
            pass
    assert path.exists()


def test_a_place_where_nothing_can_be_made_is_said() -> None:
    with pytest.raises(Permanent, match="/proc/none") as caught, listening(settings(socket="/proc/none/x"), None):
        pass
    assert "RuntimeDirectory" in caught.value.fix


# ------------------------------------------------------------ TCP


def test_the_controller_has_to_listen_somewhere() -> None:
    with pytest.raises(BadRequest, match="no address to listen on"), listening(settings(), None):
        pass


def test_without_tls_only_this_machine_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    for loopback in ("127.0.0.1:0", "localhost:0", "[::1]:0"):
        with listening(settings(loopback), None) as made:
            assert made
    for everywhere in ("0.0.0.0:0", "[::]:0"):
        with pytest.raises(BadRequest, match="without TLS") as caught, listening(settings(everywhere), None):
            pass
        assert "insecure = true" in caught.value.fix
        with capture_logs() as logs, listening(settings(everywhere, insecure=True), None):
            pass
        assert [line["log_level"] for line in logs] == ["warning"]
    with socket.create_server(("0.0.0.0", 0)) as given:
        fd = os.dup(given.fileno())
        with pytest.raises(BadRequest, match="without TLS"), listening(settings(), fd):
            pass


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Permanent, match=where) as caught, listening(settings(where), None):
            pass
        assert caught.value.fix


# ------------------------------------------------------------ who is there


ROLES = PeerRoles(gid=500)


@pytest.mark.parametrize(
    ("peer", "role"),
    [
        (Peer(1, 0, frozenset()), UserRole.ADMIN),
        (Peer(1, 1000, frozenset({500})), UserRole.OPERATOR),
        (Peer(1, 1000, frozenset({501})), None),
        (None, None),
    ],
)
def test_who_may_what_without_a_token(peer: Peer | None, role: UserRole | None) -> None:
    if role is not None:
        assert ROLES.actor(peer).role is role
        return
    with pytest.raises(Unauthenticated) as caught:
        ROLES.actor(peer)
    assert "sterna token create" in caught.value.fix


def test_the_settings_can_let_in_fewer() -> None:
    for roles in (PeerRoles(root=None, gid=500), PeerRoles(root=None, group=None, gid=0)):
        with pytest.raises(Unauthenticated):
            roles.actor(Peer(1, 0, frozenset({0})))
    assert PeerRoles(group=UserRole.VIEWER, gid=500).actor(Peer(1, 7, frozenset({500}))).role is UserRole.VIEWER
    for roles in (PeerRoles(group=None, gid=500), PeerRoles(gid=None)):
        with pytest.raises(Unauthenticated):
            roles.actor(Peer(1, 1000, frozenset({500})))


def test_the_settings_name_who_is_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(tmp_path, monkeypatch, migrators=54321)
    given = {"group": "migrators", "root_role": "none", "group_role": "viewer", "names": ["API.example"]}
    token = {"name": "ci", "role": "operator", "sha256": "0" * 64}
    rules = access_rules_of(AccessSettings.model_validate(given | {"tokens": [token]}))
    assert rules.peers == PeerRoles(root=None, group=UserRole.VIEWER, gid=54321)
    assert rules.names == {"api.example"}
    assert rules.tokens == (FixedToken(name="ci", role=UserRole.OPERATOR, digest="0" * 64),)
    assert access_rules_of(AccessSettings()).peers == PeerRoles()


def test_the_user_the_controller_runs_as_is_let_in_as_root_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert PeerRoles().actor(Peer(1, 1000, frozenset())).role is UserRole.ADMIN


def test_users_are_named_by_the_local_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "passwd"
    file.write_text("root:x:0:0::/root:/bin/sh\nbroken\nmina:x:1000:1000::/:/bin/sh\n")
    monkeypatch.setattr(peers, "_PASSWD", file)
    assert (user_name(1000), user_name(1001)) == ("mina", "1001")
    file.unlink()
    assert user_name(1000) == "1000"


def test_the_kernel_says_who_has_connected() -> None:
    name = f"sterna-test-{os.getpid()}"  # an abstract one, which every user reaches
    program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + sys.argv[1]); s.recv(1)"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        server.settimeout(20)
        child = subprocess.Popen(
            ["/usr/bin/env", "python3", "-c", program, name], user=65534, group=65534, extra_groups=[4711, 4712]
        )
        try:
            connected, _ = server.accept()
            with connected:
                peer = peer_of(connected)
        finally:
            child.kill()
            child.wait()
    assert peer == Peer(child.pid, 65534, frozenset({65534, 4711, 4712}))
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        assert peer_of(tcp) is None


# ------------------------------------------------------------ served


@asynccontextmanager
async def serving(
    world: World,  # noqa: F811
    given: ControllerSettings,
    rules: AccessRules = ACCESS,
) -> AsyncIterator[list[socket.socket]]:
    with listening(given, None) as sockets:
        server = Server(create_app(world.controller, rules), tls=tls_of(given.access), lifespan="off")
        running = asyncio.create_task(server.serve(sockets=sockets))
        async with asyncio.timeout(20):
            while not server.started:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            yield sockets
            server.should_exit = True
            await running


def over(path: Path) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.AsyncHTTPTransport(uds=str(path)), base_url="http://sterna")


async def test_one_comes_in_by_the_socket_without_a_token_and_by_tcp_with_one_only(
    world: World,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = tmp_path / "api.sock"
    async with serving(world, settings("127.0.0.1:0", socket=str(path))) as sockets:
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        async with over(path) as http, httpx2.AsyncClient(base_url=url, trust_env=False) as tcp:
            assert (await http.patch("/v1/hosts/b", json={"maintenance": True})).status_code == 200
            assert (await tcp.get("/v1/hosts")).status_code == 401
            assert (await tcp.get("/v1/hosts", headers=bearing())).status_code == 200
            (line,) = (await http.get("/v1/log")).json()["lines"]
            refused = await http.get("/v1/hosts", headers={"Authorization": "Bearer wrong"})
            assert refused.status_code == 401, "a token that is sent is the one that counts"
    assert (line["actor"], line["role"]) == ("user:root", "admin")
    assert line["origin"] == f"process {os.getpid()} here"


async def test_nobody_can_say_that_it_comes_from_elsewhere(world: World, tmp_path: Path) -> None:  # noqa: F811
    path = tmp_path / "api.sock"
    given = {"X-Forwarded-For": "192.0.2.66", "X-Forwarded-Proto": "https", "Forwarded": "for=192.0.2.66"}
    async with serving(world, settings("127.0.0.1:0", socket=str(path))) as sockets, over(path) as http:
        url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        async with httpx2.AsyncClient(base_url=url, trust_env=False, headers=bearing() | given) as tcp:
            answer = await tcp.patch("/v1/hosts/b", json={"maintenance": True})
        await http.patch("/v1/hosts/b", json={"maintenance": False}, headers=given)
        lines = (await http.get("/v1/log")).json()["lines"]
    assert [line["origin"] for line in lines] == [f"process {os.getpid()} here", "127.0.0.1"]
    assert "server" not in answer.headers


async def test_who_is_not_let_in_by_the_socket_needs_a_token_there_as_well(
    world: World,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = tmp_path / "api.sock"
    nobody = AccessRules(tokens=ACCESS.tokens, peers=PeerRoles(root=None, group=None))
    async with serving(world, settings(socket=str(path)), nobody), over(path) as http:
        assert (await http.get("/v1/hosts")).status_code == 401
        assert (await http.get("/v1/hosts", headers=bearing(UserRole.VIEWER))).status_code == 200


def certificate(folder: Path) -> Path:
    path = folder / "cert.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=api -days 2"
    named = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key.pem"), "-out", str(path)]
    subprocess.run([*made.split(), *named], check=True, capture_output=True)
    return path


async def test_tls_is_spoken_over_tcp_and_plain_http_is_not(world: World, tmp_path: Path) -> None:  # noqa: F811
    cert, path = certificate(tmp_path), tmp_path / "api.sock"
    given = settings("127.0.0.1:0", socket=str(path), cert_file=cert, key_file=tmp_path / "key.pem")
    async with serving(world, given) as sockets:
        where = f"127.0.0.1:{sockets[0].getsockname()[1]}"
        known = ssl.create_default_context(cafile=str(cert))
        async with httpx2.AsyncClient(verify=known, trust_env=False, headers=bearing()) as http:
            assert (await http.get(f"https://{where}/v1/hosts")).status_code == 200
            with pytest.raises(httpx2.TransportError):
                await http.get(f"http://{where}/v1/hosts")
        async with over(path) as http:
            assert (await http.get("/v1/hosts")).status_code == 200


@asynccontextmanager
async def over_tls(app: Any, folder: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client of that application."""
    cert = certificate(folder)
    tls = tls_of(AccessSettings(cert_file=cert, key_file=folder / "key.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listens:
        server = Server(app, tls=tls, lifespan="off")
        running = asyncio.create_task(server.serve(sockets=[listens]))
        async with asyncio.timeout(30):
            while not server.started:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            known = ssl.create_default_context(cafile=str(cert))
            reader, writer = await asyncio.open_connection(*listens.getsockname(), ssl=known)
            yield reader, writer
            writer.transport.abort()
            server.should_exit = True
            await running


REQUEST = b"GET / HTTP/1.1\r\nHost: sterna\r\n\r\n"


async def test_over_tls_who_takes_nothing_is_cut_off_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_server, "UNREAD_S", 1)
    ended = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        async def pour() -> None:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": []})
        pouring = asyncio.create_task(pour())
        await receive()  # the request
        assert (await receive())["type"] == "http.disconnect"
        pouring.cancel()
        ended.set()

    async with over_tls(endless, tmp_path) as (reader, writer):
        writer.write(REQUEST)
        reader._transport.pause_reading()  # type: ignore[attr-defined] # its process stands still
        await ended.wait()


async def test_over_tls_who_takes_it_slowly_gets_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "UNREAD_S", 1)
    much = 2**22

    async def large(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(much).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * much})

    async with over_tls(large, tmp_path) as (reader, writer):
        writer.write(REQUEST)
        taken = 0
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        while taken < much:
            taken += len(await reader.read(2**17))
            await asyncio.sleep(0.05)  # all of it takes longer than the limit
        assert taken == much


def test_certificates_that_will_not_do_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"none\.pem") as caught:
        tls_of(AccessSettings(cert_file=tmp_path / "none.pem"))
    assert "[access]" in caught.value.fix
    assert listeners.tls_of(AccessSettings()) is None
