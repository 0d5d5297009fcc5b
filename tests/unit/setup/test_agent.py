"""`sterna setup agent`: from nothing, again, with settings that are there, and with what can be wrong."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.own import OwnFiles
from sterna.domain.trust.identities import domains_of

from .conftest import Host, printed, wrong

SERVER = "https://10.0.0.1:8774"


def options(host: Host, /, **more: object) -> list[object]:
    """What a script gives."""
    given: dict[str, object] = {
        "address": "10.0.0.11",
        "bus": "nats://10.0.0.1:4222",
        "config": host.agent,
        "folder": host.folder / "identity",
        "state_dir": host.folder / "state",
    }
    given |= more
    words = [(f"--{name.replace('_', '-')}", value) for name, value in given.items() if value is not None]
    return ["agent", *(word for pair in words for word in pair), "--yes"]


def joining(host: Host, /, **more: object) -> list[object]:
    """The same, with a token."""
    return options(host, server=SERVER, token_file=host.token("compute1", "10.0.0.11"), **more)


def settings(host: Host) -> dict[str, Any]:
    return tomllib.loads(host.agent.read_text())


def test_a_host_from_nothing(host: Host, ca: Authority) -> None:
    result = host(*joining(host))
    assert settings(host) == {
        "host": "compute1",
        "state_dir": str(host.folder / "state"),
        "migration": {"address": "10.0.0.11"},
        "identity": {"enrol": "sterna", "folder": str(host.folder / "identity"), "server": SERVER},
        "bus": {"url": "nats://10.0.0.1:4222"},
        "network": {"ovsdb": ""},
    }
    assert stat.S_IMODE(host.agent.stat().st_mode) == 0o600
    assert stat.S_IMODE((host.folder / "state").stat().st_mode) == 0o700
    assert OwnFiles(host.folder / "identity").name() == "compute1" and host.desk.asked == [SERVER]
    assert (host.folder / "pki/libvirt/servercert.pem").exists()
    assert host.units.calls == ["enable sterna-agent.service", "restart sterna-agent.service"]
    said = printed(result)
    for line in (
        "join the fleet at https://10.0.0.1:8774",
        'host = "compute1"',
        "enable sterna-agent.service and start",
    ):
        assert line in said
    assert said.index("This will:") < said.index("done: join the fleet")
    assert "compute1 is set up" in said


def test_again_there_is_nothing_to_change(host: Host, ca: Authority) -> None:
    host(*joining(host))
    before, calls = host.files(), list(host.units.calls)
    assert "nothing to change" in host("agent", "--config", host.agent, "--yes").stdout
    assert "nothing to change" in host("agent", "--config", host.agent).stdout  # there is nothing to agree to
    again = host(*joining(host))  # a script that gives everything each time
    assert "nothing to change" in again.stdout and "the token is not used" in again.stderr
    after = host.files()
    for made in (host.folder / "compute1.token", host.folder / "ca/register.json", host.folder / "ca/revoked.crl"):
        before.pop(str(made), None), after.pop(str(made), None)
    assert after == before and host.units.calls == calls


def test_a_change_is_shown_kept_small_and_restarts_the_agent(host: Host, ca: Authority) -> None:
    host(*joining(host))
    kept = "\n# mine\n[volumes]\ninitiator = 'iqn.2026-11.org.example:c1'  # keep\n"
    host.agent.write_text(host.agent.read_text() + kept)
    host.units.calls.clear()
    result = host("agent", "--config", host.agent, "--bus", "10.0.0.2", "--yes")
    assert 'bus.url = "nats://10.0.0.2:4222" (was' in printed(result)
    assert host.agent.read_text().endswith(kept) and settings(host)["bus"]["url"] == "nats://10.0.0.2:4222"
    assert host.units.calls == ["restart sterna-agent.service"]


def test_a_person_is_asked(host: Host, ca: Authority) -> None:
    host.has_terminal = True
    token = host.token("compute1").read_text().strip()
    typed = f"\nlocalhost\n10.0.0.11\nhttp://10.0.0.1\n{SERVER}\n{token}\n\ny\n"
    folders = ["--folder", host.folder / "identity", "--state-dir", host.folder / "state"]
    result = host("agent", "--config", host.agent, *folders, typed=typed)
    assert settings(host)["host"] == "compute1" and settings(host)["bus"]["url"] == "nats://10.0.0.1:4222"
    assert "not an address at which other hosts" in result.stderr and token not in result.output


def test_what_is_not_wanted_is_not_done(host: Host, ca: Authority) -> None:
    host.has_terminal = True
    words = [word for word in joining(host, host="compute1") if word != "--yes"]
    before = host.files()
    assert "nothing was changed" in host(*words, typed="n\n", code=3).stderr
    assert host.files() == before and host.units.calls == [] and not host.agent.parent.exists()


def test_without_a_terminal_what_is_missing_is_named(host: Host) -> None:
    said = printed(host("agent", "--config", host.agent, "--yes", code=2))
    assert (
        "--address, --server, --token-file, --bus" in said and "fix: give these options: sterna setup agent" in said
    )
    full = [word for word in options(host, enrol="none") if word != "--yes"]
    assert "run it again with --yes" in printed(host(*full, code=2))
    assert not host.agent.exists()


@pytest.mark.parametrize(
    ("wrong_one", "fix"),
    [
        ({"host": "a.b"}, "no dots"),
        ({"address": "127.0.0.1"}, "an IP address of this host"),
        ({"address": "two words"}, "an IP address of this host"),
        ({"bus": "http://x"}, "nats://10.0.0.1:4222"),
        ({"bus": "nats://u:p@x:1"}, "user and password in [bus]"),
        ({"server": "http://10.0.0.1:8774"}, "https://10.0.0.1:8774"),
        ({"token_file": "/none"}, "sterna host add"),
        ({"ovsdb": "tcp:name:1"}, "configuration.md"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_would_be_right(
    host: Host, ca: Authority, wrong_one: dict[str, object], fix: str
) -> None:
    given = {"server": SERVER, "token_file": host.token("compute1")} | wrong_one
    assert fix in printed(host(*options(host, **given), code=2))
    assert not host.agent.exists() and not (host.folder / "identity").exists() and host.units.calls == []


def test_a_token_of_another_host_or_of_another_ca_changes_nothing(
    host: Host, ca: Authority, tmp_path: Path
) -> None:
    token = host.token("compute2")
    refused = printed(host(*options(host, server=SERVER, token_file=token, host="compute1"), code=2))
    assert "the token is for compute2" in refused and "--host" in refused
    Authority.make(tmp_path / "other", domains_of([]))
    host.desk.folder = tmp_path / "other"
    assert "nothing was sent" in printed(host(*joining(host), code=2))
    assert not host.agent.exists() and host.units.calls == []


def test_settings_that_are_there_and_name_no_certificate_stay_so(host: Host) -> None:
    host.agent.parent.mkdir()
    host.agent.write_text(
        f'host = "old"\nstate_dir = "{host.folder}"\n[migration]\naddress = "10.0.0.9"\n'
        '[network]\novsdb = ""\n[bus]\nurl = "nats://x:1"\n'
    )
    host.agent.chmod(0o644)
    result = host("agent", "--config", host.agent, "--yes")
    assert "mode 0644 -> 0640" in printed(result) and "identity" not in settings(host)
    assert "nothing to change" in host("agent", "--config", host.agent, "--yes").stdout


def test_files_of_libvirt_that_somebody_else_wrote_are_kept(host: Host, ca: Authority) -> None:
    theirs = host.folder / "pki/CA/cacert.pem"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    refused = printed(host(*joining(host), code=4))
    assert str(theirs) in refused and "--overwrite" in refused and not host.agent.exists()
    said = printed(host(*joining(host), "--overwrite"))
    assert f"keep as *.before-sterna: {theirs}" in said
    assert theirs.with_name("cacert.pem.before-sterna").read_text() == "theirs"


def test_without_the_unit_it_says_what_to_run(host: Host, ca: Authority) -> None:
    host.units.texts.clear()
    said = printed(host(*joining(host)))
    assert "there is no sterna-agent.service" in said and f"sterna agent --config {host.agent}" in said
    host.units.booted = False
    assert "systemd does not run here" in printed(host("agent", "--config", host.agent, "--yes"))
    host.units.booted = True
    host.units.texts["sterna-agent.service"] = "ExecStart=sterna agent --config /elsewhere.toml"
    assert f"does not read {host.agent}" in printed(host("agent", "--config", host.agent, "--yes"))
    assert host.units.calls == []


def test_a_unit_that_does_not_start_is_an_error_with_where_to_look(host: Host, ca: Authority) -> None:
    host.units.broken = True
    assert "journalctl -u sterna-agent.service" in printed(host(*joining(host), code=1))
    host.units.broken = False
    assert "done: start sterna-agent.service" in printed(host("agent", "--config", host.agent, "--yes"))


def test_what_the_checks_find_is_shown_and_is_the_exit_code(host: Host, ca: Authority) -> None:
    host.findings = [wrong("bus")]
    result = host(*joining(host), code=11)
    assert "bus is wrong" in result.stdout and "fix: fix it" in result.stdout
    assert f"sterna agent doctor --config {host.agent}" in printed(result)
    host("agent", "--config", host.agent, "--yes", "--no-check")


def test_a_folder_with_a_controllers_certificate_is_not_used(host: Host, ca: Authority) -> None:
    from typer.testing import CliRunner

    from sterna.cli.main import app

    folder = str(host.folder / "identity")
    assert CliRunner().invoke(app, ["ca", "issue", "controller", "c1", "--folder", folder]).exit_code == 0
    assert "name another folder with `--folder`" in printed(host(*joining(host), code=2))


def test_certificates_of_another_ca_are_looked_at_first(host: Host, ca: Authority) -> None:
    missing = host(*options(host, enrol="external", folder=None), code=2)
    assert "--ca-file, --cert-file, --key-file" in printed(missing)
    files = {name: host.folder / name for name in ("ca_file", "cert_file", "key_file")}
    said = printed(host(*options(host, enrol="external", folder=None, **files), code=5))
    assert "there is no" in said and not host.agent.exists()


def test_a_settings_file_that_cannot_be_changed_line_by_line(host: Host) -> None:
    host.agent.parent.mkdir()
    host.agent.write_text('host = "a"\nbus = { url = "nats://x:1" }\nmigration = { address = "10.0.0.1" }\n')
    said = printed(host("agent", "--config", host.agent, "--bus", "nats://y:1", "--yes", code=2))
    assert 'fix: set there: bus.url = "nats://y:1"' in said
    host.agent.write_text("a = = b")
    assert "is not TOML" in printed(host("agent", "--config", host.agent, "--yes", code=2))
