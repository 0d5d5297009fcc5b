"""`sterna controller` as a process: it serves without a bus, and ends when told to though somebody listens."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest

from sterna.kit.digests import digest_of
from tests.postgres import Postgres

HANGS = """
import sys, threading
from sterna.adapters.sql import fleet
from sterna.bootstrap import controller
from sterna.__main__ import run

def hang(*args):
    threading.Event().wait()

{changes}
run()
"""
"""A controller with a fault in it; everything else is as it is in service."""


ADMIN = {"Authorization": "Bearer of-this-test"}


def written(config: Path, database: str) -> Path:
    """Settings with a token that needs no database."""
    token = f'[[access.tokens]]\nname = "test"\nrole = "admin"\nsha256 = "{digest_of("of-this-test")}"\n'
    config.write_text(f'database = "{database}"\n[bus]\nurl = "nats://127.0.0.1:9"\n{token}')
    return config


def start(config: Path, listening: socket.socket, changes: str = "") -> subprocess.Popen[bytes]:
    number = listening.fileno()
    program = ["-c", HANGS.format(changes=changes)] if changes else ["-m", "sterna"]
    command = [sys.executable, *program, "controller", "--config", str(config), "--fd", str(number)]
    return subprocess.Popen(command, pass_fds=[number], stderr=subprocess.PIPE)


def test_a_resolver_that_hangs_keeps_it_from_ending_no_longer(config: Path) -> None:
    config.write_text(config.read_text().replace("127.0.0.1:9", "bus.example:4222"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        api = f"http://127.0.0.1:{listening.getsockname()[1]}"
        process = start(config, listening, "import socket; socket.getaddrinfo = hang")
    try:
        assert httpx2.get(f"{api}/v1/health", timeout=60, trust_env=False).json()["status"] == "bus-lost"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_clients_that_say_nothing_keep_others_out_for_a_while_only(config: Path) -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    changes = f"{few}\nfrom sterna.api import server; server.REQUEST_S = 1"
    with socket.create_server(("127.0.0.1", 0)) as listening, contextlib.ExitStack() as silent:
        where = listening.getsockname()
        process = start(config, listening, changes)
        try:
            for _ in range(100):  # more than it may have open
                silent.enter_context(socket.create_connection(where))
            api = f"http://127.0.0.1:{where[1]}"
            assert httpx2.get(f"{api}/v1/health", timeout=60, trust_env=False).json()["status"] == "bus-lost"
        finally:
            process.kill()
            _, stderr = process.communicate()
    assert b"no client can be accepted for now" in stderr and b"Traceback" not in stderr


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_it_takes_as_many_files_as_it_may_have(config: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        api = f"http://127.0.0.1:{listening.getsockname()[1]}"
        process = start(
            config, listening, f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, {most}))"
        )
    try:
        httpx2.get(f"{api}/v1/health", timeout=60, trust_env=False)
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (most, most)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def config(tmp_path: Path, database: str) -> Path:
    return written(tmp_path / "controller.toml", database)


def test_a_database_that_hangs_keeps_it_from_ending_for_a_moment_only(config: Path) -> None:
    changes = "fleet.on_hosts.all_hosts, fleet.ANSWER_S, fleet.CLOSE_S = hang, 0.2, 0.2"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        api = f"http://127.0.0.1:{listening.getsockname()[1]}"
        process = start(config, listening, changes)
    try:
        assert httpx2.get(f"{api}/v1/hosts", timeout=60, trust_env=False, headers=ADMIN).status_code == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        _, stderr = process.communicate()
    assert b"its pending work is abandoned" in stderr


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_one_whose_database_hangs_while_it_starts_ends_when_it_is_told_to(config: Path) -> None:
    """Nobody waits for the hosts' list (30 s, and again)."""
    asked = "def asked(*args):\n    print('asked', file=sys.stderr, flush=True)\n    hang()"
    changes = f"{asked}\nfleet.on_hosts.all_hosts, fleet.CLOSE_S = asked, 0.2"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = start(config, listening, changes)
    assert process.stderr is not None
    ended = threading.Timer(120, process.kill)
    ended.start()
    try:
        assert any(b"asked" in line for line in process.stderr)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 0
        assert time.monotonic() - began < 20
    finally:
        ended.cancel()
        process.kill()
        _, stderr = process.communicate()
    assert b"Traceback" not in stderr


def test_a_database_that_hangs_when_it_starts_is_told_and_ended_by_sigterm(config: Path) -> None:
    changes = "from sterna.bootstrap import process; fleet.open_database, process.SLOW_S = hang, 0.2"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = start(config, listening, changes)
    assert process.stderr is not None
    ended = threading.Timer(60, process.kill)
    ended.start()
    try:
        assert any(b"the database does not answer yet; waiting" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    finally:
        ended.cancel()
        process.kill()
        process.communicate()


def test_it_serves_on_the_socket_it_is_given_and_ends_on_sigterm(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        api = f"http://127.0.0.1:{listening.getsockname()[1]}"
        process = start(config, listening)
    try:
        with httpx2.Client(base_url=api, timeout=30, trust_env=False, headers=ADMIN) as http:
            health = http.get("/v1/health")  # nothing listens where its bus should be
            assert (health.status_code, health.json()["status"]) == (503, "bus-lost")
            with http.stream("GET", "/v1/events") as events:
                lines = events.iter_lines()
                assert next(lines) == ": hello"
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                assert not [line for line in lines if line.startswith("data")]
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5
    finally:
        process.kill()
        _, stderr = process.communicate()
    assert stderr.count(b"the message bus does not answer yet") == 1
    assert b"[debug" not in stderr  # nor is each further try told


def test_it_waits_for_a_database_server_that_is_away(tmp_path: Path, postgres: Postgres) -> None:
    config = tmp_path / "controller.toml"
    config.write_text(f'database = "{postgres.database()}"\n[bus]\nurl = "nats://127.0.0.1:9"\n')
    postgres.stop()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            api = f"http://127.0.0.1:{listening.getsockname()[1]}"
            process = start(config, listening)
        assert process.stderr is not None
        for line in process.stderr:
            if b"the database cannot be used yet" in line:
                break
    finally:
        postgres.start()
    try:
        assert httpx2.get(f"{api}/v1/health", timeout=60, trust_env=False).json()["status"] == "bus-lost"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def test_it_does_not_wait_for_a_database_server_that_refuses_it(tmp_path: Path, postgres: Postgres) -> None:
    config = tmp_path / "controller.toml"
    config.write_text(f'database = "{postgres.url("nosuch")}"\n[bus]\nurl = "nats://127.0.0.1:9"\n')
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = start(config, listening)
    try:
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert b'"nosuch" does not exist' in stderr and b"fix:" in stderr and b"Traceback" not in stderr


def test_wrong_settings_are_told_without_a_traceback(tmp_path: Path) -> None:
    config = tmp_path / "controller.toml"
    config.write_text("databse = 'x'\n")
    command = [sys.executable, "-m", "sterna", "controller", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
    assert done.returncode == 2 and "databse" in done.stderr and "fix:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_it_serves_on_a_unix_socket_and_knows_who_asks_there(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "run" / "api.sock"
    config.write_text(config.read_text() + f'[access]\nsocket = "{path}"\n')
    command = [sys.executable, "-m", "sterna", "controller", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    sterna = [sys.executable, "-m", "sterna", "token", "create", "ci", "--role", "viewer", "--api", f"unix:{path}"]
    try:
        transport = httpx2.HTTPTransport(uds=str(path), retries=0)
        with httpx2.Client(base_url="http://sterna", transport=transport, timeout=60) as http:
            until = time.monotonic() + 60
            while not path.exists():
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.05)
            env = {key: value for key, value in os.environ.items() if key != "STERNA_TOKEN"}
            made = subprocess.run(sterna, capture_output=True, text=True, timeout=60, check=False, env=env)
            assert made.returncode == 0, made.stderr
            token = {"Authorization": f"Bearer {made.stdout.strip()}"}
            assert http.get("/v1/hosts", headers=token).status_code == 200
            assert http.post("/v1/hosts/a/declare-alive", headers=token).status_code == 403
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0 and not path.exists()
    finally:
        process.kill()
        _, stderr = process.communicate()
    assert made.stdout.strip() not in stderr.decode()
