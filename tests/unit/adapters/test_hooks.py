"""Webhooks and the command of the settings, against a real server and real programs."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sterna.adapters.hooks import posting
from sterna.adapters.hooks.own import OwnHooks
from sterna.domain import webhooks
from sterna.domain.errors import Permanent, SternaError, Temporary, Unreachable
from sterna.kit import tethered
from sterna.ports.hooks import Notice

NOTICE = Notice(
    operation="bbbbbbbb-0000-4000-8000-000000000001",
    host="host1",
    key="cccccccc-0000-4000-8000-000000000001",
    reason="new kernel",
    requested_by="token:ops",
)


def held() -> float:
    """The operation is this controller's for another minute."""
    return 60.0


@dataclass
class Server:
    """On 127.0.0.1: what it was sent, and what it answers."""

    status: int = 202
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    hangs: threading.Event | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append((self.path, dict(self.headers), body))
            if state.hangs is not None:
                state.hangs.wait(10)
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = serving.server_port
    threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield state
    if state.hangs is not None:
        state.hangs.set()
    serving.shutdown()
    serving.server_close()


async def test_a_webhook_is_told_all_that_it_needs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    await OwnHooks(allowed=(server.url,), token="secret").call(f"{server.url}/reboot", NOTICE, held)
    ((path, headers, body),) = server.asked
    assert (path, headers["Idempotency-Key"], headers["Authorization"]) == ("/reboot", NOTICE.key, "Bearer secret")
    assert body == NOTICE.model_dump() | {"done": f"/v1/operations/{NOTICE.operation}/hosts/host1/done"}


async def test_without_a_token_none_is_sent(server: Server) -> None:
    await OwnHooks(allowed=(server.url,)).call(server.url, NOTICE, held)
    assert "Authorization" not in server.asked[0][1]


@pytest.mark.parametrize("token", ["s3cret\n", "s3crét", "s3\x00cret"])
async def test_no_error_shows_the_token(server: Server, token: str) -> None:
    with pytest.raises(Permanent, match="cannot be called") as raised:
        await OwnHooks(allowed=(server.url,), token=token).call(server.url, NOTICE, held)
    assert "s3" not in raised.value.message + raised.value.fix and not server.asked


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_an_answer_that_is_no_yes_is_a_no_and_is_not_followed(server: Server, status: int) -> None:
    server.status, server.headers = status, {"Location": f"{server.url}/elsewhere"}
    with pytest.raises(Permanent, match=f"answers with status {status}"):
        await OwnHooks(allowed=(server.url,)).call(f"{server.url}/reboot", NOTICE, held)
    assert len(server.asked) == 1


async def test_a_server_that_hangs_or_is_away_is_unreachable(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "ANSWER_S", 0.1)
    server.hangs = threading.Event()
    with pytest.raises(Unreachable, match="cannot be called"):
        await OwnHooks(allowed=(server.url,)).call(server.url, NOTICE, held)
    monkeypatch.setattr(posting, "ANSWER_S", 10.0)
    monkeypatch.setattr(posting, "LONGEST_S", 0.1)
    with pytest.raises(Unreachable, match=r"has not answered within 0\.1 s"):
        await OwnHooks(allowed=(server.url,)).call(server.url, NOTICE, held)
    monkeypatch.setattr(posting, "LONGEST_S", 30.0)
    with pytest.raises(Unreachable, match="cannot be called"):
        await OwnHooks(allowed=("http://127.0.0.1:9",)).call("http://127.0.0.1:9", NOTICE, held)


async def test_what_has_become_anothers_while_it_was_prepared_is_not_sent(server: Server) -> None:
    with pytest.raises(Unreachable, match="was not called: the right to call it was over"):
        await OwnHooks(allowed=(server.url,)).call(server.url, NOTICE, lambda: 0.0)
    assert not server.asked


async def test_what_is_not_allowed_is_not_called(server: Server) -> None:
    with pytest.raises(Permanent, match="it is not below any address of `webhooks`"):
        await OwnHooks(allowed=("https://jobs.example",)).call(server.url, NOTICE, held)
    assert not server.asked and not OwnHooks().has_command()


# ------------------------------------------------------------ which addresses


ALLOWED = ("https://jobs.example/sterna", "http://[fd00::1]:8080")


@pytest.mark.parametrize(
    "url",
    [
        "https://jobs.example/sterna",
        "https://JOBS.example:443/sterna/",
        "https://jobs.example/sterna/reboot",
        "http://[fd00::1]:8080/any/thing",
    ],
)
def test_what_is_named_in_the_settings_is_called_and_all_below_it(url: str) -> None:
    assert webhooks.against(url, ALLOWED) == ""


@pytest.mark.parametrize(
    "url",
    [
        "http://jobs.example/sterna",
        "https://jobs.example/",
        "https://jobs.example:8443/sterna",
        "https://jobs.example/sternal",
        "https://jobs.example/sterna/../admin",
        "https://jobs.example/sterna/./x",
        "https://jobs.example/sterna//x",
        "https://jobs.example/sterna/%2e%2e/admin",
        "https://jobs.example/sterna\\..\\admin",
        "https://jobs.example/sterna?next=http://10.0.0.1",
        "https://jobs.example/sterna#x",
        "https://jobs.example?",
        "https://me:secret@jobs.example/sterna",
        "https://jobs.example@10.0.0.1/sterna",
        "https://10.0.0.1\\@jobs.example/sterna",
        "https://jobs.example.evil.example/sterna",
        "https://jobs.example\n.evil.example/sterna",
        "https://[fd00::2]:8080/",
        "http://[fd00::1%25eth0]:8080/",
        "http://[fd00::1:8080/",
        "https://jobs.example:0/sterna",
        "https://jobs.example:99999/sterna",
        "https:///sterna",
        "ftp://jobs.example/sterna",
        "file:///etc/passwd",
        "jobs.example/sterna",
        "https://jobs.example/sterna/" + "x" * 1000,
        "",
    ],
)
def test_nothing_else_is_called(url: str) -> None:
    assert webhooks.against(url, ALLOWED)


# ------------------------------------------------------------ the command


def program(folder: Path, text: str) -> str:
    path = folder / "reboot"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_the_command_is_told_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNA_TOKEN", "secret")
    said = tmp_path / "said"
    command = program(tmp_path, f'echo "$@" "$STERNA_TOKEN" > {said}')
    own = OwnHooks((command, "--now"))
    assert own.has_command()
    await own.run(NOTICE, 10.0, held)
    assert said.read_text().split() == ["--now", "host1", NOTICE.operation, NOTICE.key]


@pytest.mark.parametrize(
    "text, kind, words",
    [
        ("echo no such host >&2; exit 3", Permanent, "ended with 3: no such host"),
        ("kill -TERM $$", Temporary, "was ended by signal 15"),
        ("exec sleep 60", Temporary, "gave no answer within 0.2 s"),
    ],
)
async def test_a_command_that_fails_says_how(
    tmp_path: Path, text: str, kind: type[SternaError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        await OwnHooks((program(tmp_path, text),)).run(NOTICE, 0.2 if "sleep" in text else 10.0, held)


async def test_a_command_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "reboot").write_text("no program")
    for command, words in (
        ((), "no command in `between`"),
        ((str(tmp_path / "missing"),), "there is no"),
        ((str(tmp_path / "reboot"),), "cannot be run: Permission denied"),
    ):
        with pytest.raises(Permanent, match=words):
            async with asyncio.timeout(10):
                await OwnHooks(command).run(NOTICE, 10.0, held)


# ------------------------------------------------------------ the command ends with the right to run it

CHILD = "sleep 60 & echo $! > {}\nwait"
"""A command with a child: it writes the child's process id."""


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)


def runs(file: Path) -> bool:
    """Does the process with the id in that file run? One that has ended may wait for its parent."""
    try:
        state = Path(f"/proc/{file.read_text().strip()}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_what_is_cancelled_ends_with_its_children(tmp_path: Path) -> None:
    file = tmp_path / "child"
    task = asyncio.create_task(OwnHooks((program(tmp_path, CHILD.format(file)),)).run(NOTICE, 60.0, held))
    await until(lambda: file.exists() and runs(file))
    task.cancel()
    await asyncio.wait([task], timeout=10)
    await until(lambda: not runs(file))


async def test_it_ends_when_the_right_to_run_it_is_over_though_nobody_says_so_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the controller hangs: it tells the command nothing any more."""
    monkeypatch.setattr(tethered, "SAY_S", 60.0)
    file = tmp_path / "child"
    own = OwnHooks((program(tmp_path, CHILD.format(file)),))
    with pytest.raises(Temporary, match="was ended by signal 9"):
        await own.run(NOTICE, 60.0, lambda: 0.6)
    await until(lambda: not runs(file))


async def test_it_goes_on_as_long_as_the_right_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tethered, "SAY_S", 0.05)
    await OwnHooks((program(tmp_path, "sleep 2"),)).run(NOTICE, 60.0, lambda: 1.5)


async def test_it_ends_with_a_controller_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "child"
    controller = f"""
import asyncio
from sterna.adapters.hooks.own import OwnHooks
from sterna.ports.hooks import Notice
notice = Notice(operation="o", host="h", key="k")
asyncio.run(OwnHooks(({program(tmp_path, CHILD.format(file))!r},)).run(notice, 60.0, lambda: 60.0))
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", controller)
    await until(lambda: file.exists() and runs(file))
    process.kill()
    async with asyncio.timeout(10):
        await process.wait()
    await until(lambda: not runs(file))
