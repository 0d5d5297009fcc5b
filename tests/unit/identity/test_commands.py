"""`sterna ca`, `sterna host add` and `remove`, `sterna agent join` and `request`, `sterna bus config`, as typed."""

from __future__ import annotations

import json
import os
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from sterna.adapters.identity.own import OwnFiles
from sterna.bootstrap.agent import run_agent
from sterna.bootstrap.controller import run_controller
from sterna.bootstrap.enrolling import ca as ca_commands
from sterna.domain.errors import BadRequest, NotFound
from sterna.domain.trust.identities import Kind

from .commands import Run, by_files


def test_a_host_joins_by_files(ca: Run, tmp_path: Path) -> None:
    own = by_files(ca, "host1", tmp_path / "host1", "10.0.0.1", "fd00::1")
    assert own.name() == "host1"
    shown = json.loads(ca("ca", "show", "--json").stdout)
    assert shown["fingerprint"] == own.fingerprint()
    assert shown["members"][0]["addresses"] == ["10.0.0.1", "fd00::1"]
    assert "host1" in ca("ca", "show").stdout


def test_a_token_alone_is_on_standard_output(ca: Run) -> None:
    result = ca("host", "add", "host1")
    assert result.stdout.strip().startswith("sterna1.host1.")
    assert len(result.stdout.split()) == 1
    document = json.loads(ca("host", "add", "host1", "--json").stdout)
    assert document["token"].split(".")[2] == document["fingerprint"]
    assert document["token"].rpartition(".")[2] not in ca("ca", "show", "--json").stdout


def test_a_token_is_typed_and_not_an_argument(ca: Run, tmp_path: Path) -> None:
    """An argument is in the list of processes, which every user of the host can read."""
    added = ca("host", "add", "host1")
    assert "sterna agent join - --server" in added.stderr and "TOKEN" not in added.stderr
    own = by_files(ca, "host1", tmp_path / "host1")
    assert own.name() == "host1"
    token = ca("host", "add", "host2").stdout.strip()
    certificate = ("--certificate", tmp_path / "ca/ca.crt")
    typed = ca("agent", "join", "-", *certificate, typed=f"{token}\nwhatever follows", code=2).stderr
    assert "not 2" in typed and "warning" not in typed
    given = ca("agent", "join", token, *certificate, code=2).stderr
    assert "every user of this host can read" in given and token not in given and "not 2" in given


def test_no_secret_is_in_a_file_that_others_may_read(ca: Run, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        by_files(ca, "host1", tmp_path / "host1")
        ca("ca", "issue", "controller", "c1", "--folder", tmp_path / "c1")
    finally:
        os.umask(before)
    secrets = [p for p in tmp_path.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()]
    assert len(secrets) >= 2
    for path in secrets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_removed_host_is_not_in_the_next_configuration(ca: Run, tmp_path: Path) -> None:
    by_files(ca, "host1", tmp_path / "host1")
    ca("ca", "issue", "controller", "c1", "--folder", tmp_path / "c1")
    listen = ("--listen", "10.0.0.1:4222")
    assert "e1.host1.agents.sterna" in ca("bus", "config", *listen).stdout
    said = ca("host", "remove", "host1").stderr
    assert "sterna bus config" in said and "revoked.crl" in said
    result = ca("bus", "config", *listen)
    assert "host1" not in result.stdout
    assert "e1.c1.controllers.sterna" in result.stdout
    ca("ca", "remove", "controller", "c1")
    ca("bus", "config", *listen, code=2)


def test_a_bus_without_a_controller_is_warned_about(ca: Run, tmp_path: Path) -> None:
    by_files(ca, "host1", tmp_path / "host1")
    assert "sterna ca issue controller" in ca("bus", "config", "--listen", "10.0.0.1").stderr


def test_a_bus_for_certificates_of_another_ca(sterna: Run, tmp_path: Path) -> None:
    given = ("--host", "host1=h1.example.org", "--host", "host2", "--controller", "c1=c.example.org")
    file = tmp_path / "nats.conf"
    sterna("bus", "config", "--listen", "10.0.0.1", *given, "--out", file)
    text = file.read_text()
    for user in ("h1.example.org", "host2.agents.sterna", "c.example.org"):
        assert f'user: "{user}"' in text
    assert "sterna.agent.*.call.host1" in text
    sterna("bus", "config", "--listen", "10.0.0.1", "--host", "a b=x", code=2)
    sterna("bus", "config", "--listen", "10.0.0.1", "--host", "host1=a b", code=2)


def test_the_configuration_is_one_that_nats_server_takes(ca: Run, tmp_path: Path) -> None:
    by_files(ca, "host1", tmp_path / "host1")
    ca("ca", "issue", "controller", "c1", "--folder", tmp_path / "c1")
    odd = tmp_path / 'a "quoted" \\ folder'
    ca("ca", "issue", "bus", "n1", "--address", "127.0.0.1", "--folder", odd)
    file = tmp_path / "nats.conf"
    ca("bus", "config", "--listen", "127.0.0.1:4222", "--folder", odd, "--out", file)
    server = next(
        (p for p in ("/usr/sbin/nats-server", "/usr/local/bin/nats-server") if Path(p).exists()), "nats-server"
    )
    done = subprocess.run([server, "-t", "-c", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_certificate_that_is_not_due_is_left_alone(ca: Run, tmp_path: Path) -> None:
    own = OwnFiles(tmp_path / "c1", Kind.CONTROLLER)
    command = ("ca", "issue", "controller", "c1", "--folder", tmp_path / "c1", "--if-due")
    ca(*command)
    before = own.certificate_file.read_bytes()
    assert "not due" in ca(*command).stderr
    assert own.certificate_file.read_bytes() == before
    ca(*command[:-1])
    assert own.certificate_file.read_bytes() != before


@pytest.mark.parametrize("if_due", [(), ("--if-due",)])
def test_a_certificate_of_another_kind_is_not_replaced(ca: Run, tmp_path: Path, if_due: tuple[str, ...]) -> None:
    folder = ("--folder", tmp_path / "identity")
    ca("ca", "issue", "controller", "c1", *folder)
    own = OwnFiles(tmp_path / "identity", Kind.CONTROLLER)
    before = own.certificate_file.read_bytes()
    said = ca("ca", "issue", "bus", "n1", *folder, *if_due, code=2).stderr
    assert "the certificate of a controller" in said
    assert "--folder" in said.partition("fix: ")[2]
    said = ca("agent", "request", "host1", *folder, code=2).stderr
    assert "the certificate of a controller" in said
    assert own.certificate_file.read_bytes() == before


def test_each_kind_has_a_folder_of_its_own(ca: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {kind: tmp_path / kind for kind in ca_commands.DEFAULT_FOLDER}
    monkeypatch.setattr(ca_commands, "DEFAULT_FOLDER", folders)
    for kind, folder in folders.items():
        ca("ca", "issue", kind.value, "x1")
        assert "not due" in ca("ca", "issue", kind.value, "x1", "--if-due").stderr
        assert OwnFiles(folder, Kind(kind.value)).name() == "x1"


def test_another_ca_takes_the_place_of_the_first(ca: Run, tmp_path: Path) -> None:
    """As in the how-to about replacing a CA: in the same folders, one after the other."""
    folders = {kind: tmp_path / kind for kind in ("controller", "bus")}

    def enrol() -> OwnFiles:
        for kind, folder in folders.items():
            ca("ca", "issue", kind, "x1", "--folder", folder)
        return by_files(ca, "host1", tmp_path / "host1", "10.0.0.1")

    before = enrol().fingerprint()
    (tmp_path / "ca").rename(tmp_path / "ca.old")
    ca("ca", "init")
    own = enrol()
    present = json.loads(ca("ca", "show", "--json").stdout)["fingerprint"]
    assert own.fingerprint() == present != before
    for kind, folder in folders.items():
        assert OwnFiles(folder, Kind(kind)).fingerprint() == present


WRONG: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a name that is none": (("host", "add", "a.b"), 2, "letters, digits"),
    "an address that is none": (("host", "add", "host1", "--address", "a b"), 2, "IPv4 or IPv6"),
    "a name of another domain": (("host", "add", "host1", "--address", "h.example"), 2, "--domain"),
    "nobody to remove": (("host", "remove", "host9"), 5, "enrolled are"),
    "a second CA": (("ca", "init"), 4, "name another folder"),
    "a domain that is none": (("ca", "init", "--ca", "/proc/none", "--domain", "a b"), 2, "migration.example.org"),
    "a folder nobody can make": (("ca", "init", "--ca", "/proc/none"), 2, "may write"),
    "a request that is not there": (("ca", "sign", "/proc/none"), 2, "path"),
    "no CA": (("host", "add", "host1", "--ca", "/proc/none"), 5, "sterna ca init"),
    "a token that is none": (("agent", "join", "nonsense", "--server", "https://a"), 2, "whole token"),
    "neither server nor file": (("agent", "join", f"sterna1.host1.{'ab' * 32}.{'0' * 32}"), 2, "--certificate"),
    "a server that is none": (
        ("agent", "join", f"sterna1.host1.{'ab' * 32}.{'0' * 32}", "--server", "ftp://a"),
        2,
        "https://",
    ),
    "nobody at the server": (
        ("agent", "join", f"sterna1.host1.{'ab' * 32}.{'0' * 32}", "--server", "https://127.0.0.1:1"),
        6,
        "sterna agent request",
    ),
    "an address nobody listens on": (("bus", "config", "--listen", "a b", "--host", "h"), 2, "10.0.0.1:4222"),
    "nobody on the bus": (("bus", "config", "--listen", "10.0.0.1"), 2, "sterna host add"),
}


@pytest.mark.parametrize("what", WRONG)
def test_each_mistake_says_what_would_fix_it(ca: Run, what: str) -> None:
    arguments, code, fix = WRONG[what]
    said = ca(*arguments, code=code).stderr
    assert fix in said.partition("fix: ")[2], said


def test_a_file_with_another_number_of_certificates(ca: Run, tmp_path: Path) -> None:
    token = ca("host", "add", "host1").stdout.strip()
    said = ca("agent", "join", token, "--certificate", tmp_path / "ca" / "ca.crt", code=2).stderr
    assert "1 certificates, not 2" in said


def test_the_agent_needs_its_settings(sterna: Run) -> None:
    assert "--config" in sterna("agent", code=2).stderr


def settings(tmp_path: Path, folder: Path, kind: str = "sterna", **files: Path) -> Path:
    section = [f'enrol = "{kind}"', *(f'{name} = "{path}"' for name, path in files.items())]
    section += [f'folder = "{folder}"'] if kind == "sterna" else []
    file = tmp_path / "agent.toml"
    lines = ['host = "host1"', f'state_dir = "{tmp_path / "state"}"', "[migration]", 'address = "10.0.0.1"']
    file.write_text("\n".join([*lines, "[identity]", *section, ""]))
    return file


def test_an_agent_with_another_hosts_certificate_does_not_start(ca: Run, tmp_path: Path) -> None:
    by_files(ca, "host2", tmp_path / "host2")
    with pytest.raises(BadRequest, match=r"not issued for host1\.agents\.sterna") as caught:
        run_agent(settings(tmp_path, tmp_path / "host2"))
    assert "sterna host add host1" in caught.value.fix


def test_an_agent_that_has_not_joined_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"ca\.crt") as caught:
        run_agent(settings(tmp_path, tmp_path / "none"))
    assert caught.value.fix


def test_a_certificate_of_another_ca_must_have_the_addresses(ca: Run, tmp_path: Path) -> None:
    own = by_files(ca, "host1", tmp_path / "host1", "10.0.0.9")
    files = {"ca_file": own.ca_file, "cert_file": own.certificate_file, "key_file": own.key_file}
    with pytest.raises(BadRequest, match=r"not issued for 10\.0\.0\.1 .*alternative names"):
        run_agent(settings(tmp_path, tmp_path, "external", **files))


@pytest.mark.parametrize(("wrong", "said"), [("key_file", "key of another"), ("ca_file", "no CA in")])
def test_files_that_do_not_belong_together(ca: Run, tmp_path: Path, wrong: str, said: str) -> None:
    own = by_files(ca, "host1", tmp_path / "host1", "10.0.0.1")
    ca("ca", "init", "--ca", tmp_path / "other")
    others = {"key_file": tmp_path / "other" / "ca.key", "ca_file": tmp_path / "other" / "ca.crt"}
    files = {"ca_file": own.ca_file, "cert_file": own.certificate_file, "key_file": own.key_file}
    with pytest.raises(BadRequest, match=said):
        run_agent(settings(tmp_path, tmp_path, "external", **files | {wrong: others[wrong]}))


def test_a_controller_with_a_hosts_certificate_does_not_start(ca: Run, tmp_path: Path) -> None:
    by_files(ca, "host1", tmp_path / "host1")
    file = tmp_path / "controller.toml"
    file.write_text(f'[identity]\nenrol = "sterna"\nfolder = "{tmp_path / "host1"}"\n')
    with pytest.raises(BadRequest, match="not a certificate of a controller") as caught:
        run_controller(file)
    assert "sterna ca issue controller" in caught.value.fix


def test_openssl_takes_what_was_issued(ca: Run, tmp_path: Path) -> None:
    for kind in (Kind.CONTROLLER, Kind.BUS):
        ca("ca", "issue", kind.value, "x1", "--folder", tmp_path / kind.value)
        own = OwnFiles(tmp_path / kind.value, kind)
        context = ssl.create_default_context(cafile=own.ca_file)
        context.load_cert_chain(own.certificate_file, own.key_file)
        assert own.name() == "x1"
