"""What the doctor looks at on a host, with files that are wrong and then right."""

from __future__ import annotations

import asyncio
import socket
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from sterna.adapters.host import frames
from sterna.adapters.host.doctor import KernelLooks, synchronised
from sterna.adapters.host.frames import TcpPath
from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.doctor import look_at_certificates
from sterna.adapters.libvirt.doctor import LibvirtLooks, read_capabilities
from sterna.adapters.libvirt.qemu.probe import PlainProbe
from sterna.adapters.libvirt.session import connection
from sterna.adapters.nats.doctor import allows_responses, look_at_bus_rights
from sterna.adapters.vif.doctor import look_at_ovs
from sterna.domain.doctor.looks import Frames, HostLook
from sterna.domain.trust.bus_config import BusServer, bus_config
from sterna.domain.trust.identities import Identity, Kind
from tests.unit.adapters.identities import HOST1, join

CAPABILITIES = """<capabilities><host><secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model>
</secmodel></host><guest><arch name='x86_64'><domain type='qemu'/>{}</arch></guest></capabilities>"""


@pytest.mark.parametrize(("domain", "kvm"), [("", False), ("<domain type='kvm'/>", True)])
def test_capabilities_of_libvirt(domain: str, kvm: bool) -> None:
    found = read_capabilities(CAPABILITIES.format(domain))
    assert found == {"kvm": kvm, "security_models": ("apparmor", "dac")}


def test_settings_of_libvirt(tmp_path: Path) -> None:
    """The daemon that runs reads its own file."""
    looks = LibvirtLooks("test:///default", etc=tmp_path, system=tmp_path)
    assert looks.settings()["max_client_requests"] == 5  # libvirt's own
    (tmp_path / "libvirtd.conf").write_text("#max_client_requests = 5\nmax_client_requests = 50\n")
    (tmp_path / "virtqemud.conf").write_text("max_client_requests = 7\n")
    assert looks.settings()["max_client_requests"] == 50
    (tmp_path / "run").mkdir()
    (tmp_path / "run/virtqemud.pid").write_text("1")
    assert looks.settings()["max_client_requests"] == 7
    (tmp_path / "qemu.conf").write_text("migration_port_min = 60000\nmigration_port_max = 60009\n")
    found = looks.settings()
    assert (found["ports"], found["ports_free"]) == ("60000-60009", 10)
    with socket.create_server(("127.0.0.1", 60003)):
        assert looks.settings()["ports_free"] == 9


async def test_shared_folders_of_libvirt(tmp_path: Path) -> None:
    looks = LibvirtLooks("test:///default", etc=tmp_path)
    assert await looks.shared(("/var/lib/libvirt/images",)) == {"/var/lib/libvirt/images": False}
    (tmp_path / "qemu.conf").write_text('shared_filesystems = [ "/srv/shared" ]\n')
    assert (await looks.shared(("/x",)))["/srv/shared"] is True


async def test_capabilities_come_from_libvirt_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a connection of its own, which is closed again."""
    asked = SimpleNamespace(getCapabilities=lambda: CAPABILITIES.format(""), isAlive=lambda: 1, close=lambda: 0)
    monkeypatch.setattr(connection, "open_connection", lambda uri: asked)
    assert (await LibvirtLooks("qemu:///system").capabilities())["kvm"] is False


async def test_the_kernels_part(tmp_path: Path) -> None:
    for device in ("br0/bridge", "virbr0/bridge", "qbr1234/bridge", "eth0"):
        (tmp_path / "sys/class/net" / device).mkdir(parents=True)
    pages = tmp_path / "sys/kernel/mm/hugepages/hugepages-2048kB"
    pages.mkdir(parents=True)
    (pages / "nr_hugepages").write_text("512\n")
    enabled = tmp_path / "sys/module/apparmor/parameters"
    enabled.mkdir(parents=True)
    (enabled / "enabled").write_text("Y\n")
    looks = KernelLooks("127.0.0.1", tmp_path, tmp_path, system=tmp_path)
    found = looks.kernel()
    assert (found["bridges"], found["huge_pages"], found["apparmor"]) == (("br0",), {2 << 20: 512}, True)
    assert found["clock_synchronised"] is synchronised()
    HostLook.model_validate({"host": "h1"} | found)


def no_such_name(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_its_migration_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    where = tmp_path, tmp_path
    assert "each host itself" in (await KernelLooks("127.0.0.1", *where).address())["address_error"]
    assert "cannot be resolved" in (await KernelLooks("none.invalid", *where).address())["address_error"]
    assert (await KernelLooks("192.0.2.9", *where).address())["address_is_own"] is False


def test_the_device_that_has_an_address(tmp_path: Path) -> None:
    found = KernelLooks("127.0.0.1", tmp_path, tmp_path)._device_of("127.0.0.1")
    mtu = int(Path("/sys/class/net/lo/mtu").read_text())
    assert found == {"address_is_own": True, "device": "lo", "mtu": mtu}


def test_folders(tmp_path: Path) -> None:
    looks = KernelLooks("127.0.0.1", tmp_path / "state", tmp_path / "images")
    assert "No such file" in looks.state()["state_error"]
    assert looks.instances() == {"instances_error": f"there is no folder {tmp_path / 'images'}"}
    for name in ("state", "images"):
        (tmp_path / name).mkdir()
    assert looks.state()["state_free_bytes"] > 0 and looks.instances()["instances_free_bytes"] > 0


def test_certificates(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path / "ca", ["sterna"])
    own = join(authority, HOST1, tmp_path / "host1")
    files = {str(own.certificate_file): "the bus", str(tmp_path / "none.pem"): "libvirtd"}
    now = datetime.now(UTC)
    seen = HostLook.model_validate({"host": "h1"} | look_at_certificates(files, now)).certificates
    assert (seen[0].faults, seen[0].warned) == ((), False) and seen[0].ends[:10] > f"{now:%Y-%m-%d}"
    assert "there is no" in seen[1].faults[0]
    late = now + timedelta(days=85)
    (soon,) = HostLook.model_validate(
        {"host": "h1"} | look_at_certificates(dict([*files.items()][:1]), late)
    ).certificates
    assert soon.warned and not soon.faults
    (over,) = look_at_certificates(dict([*files.items()][:1]), now + timedelta(days=365))["certificates"]
    assert "it expired on" in over["faults"][0]
    (early,) = look_at_certificates(dict([*files.items()][:1]), now - timedelta(days=365))["certificates"]
    assert "clock" in early["faults"][0]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("permissions: { publish: {allow: [a]}, allow_responses: true }", True),
        ("allow_responses { max: 5, expires: 1m }", True),
        ("ALLOW_RESPONSES = true", True),
        ("allow_responses: false", False),
        ("# allow_responses: true\nlisten: 4222", False),
        ("// allow_responses: true", False),
        ('user: "allow_responses: true"', False),
    ],
)
def test_what_lets_a_client_answer_under_any_subject(text: str, allowed: bool) -> None:
    assert allows_responses(text) is allowed


def test_the_configuration_that_sterna_writes_lets_nobody(tmp_path: Path) -> None:
    agent = Identity(kind=Kind.AGENT, name="h1")
    server = BusServer(listen="10.0.0.1:4222", cert_file="/c", key_file="/k", ca_file="/ca")
    file = tmp_path / "nats-server.conf"
    file.write_text("permissions { allow_responses: true }")
    assert look_at_bus_rights([tmp_path / "none", file]) == {"allow_responses": str(file)}
    file.write_text(bus_config(server, [(agent, "h1.agents.sterna")]))
    assert look_at_bus_rights([tmp_path / "none", file]) == {}


async def test_open_vswitch(tmp_path: Path) -> None:
    assert await look_at_ovs("") == {}
    found = await look_at_ovs(f"unix:{tmp_path}/none.sock")
    assert found.keys() == {"ovs_error"} and found["ovs_error"]


async def test_packets_of_full_size_that_arrive() -> None:
    """At the same probe that a migration uses."""
    probe = PlainProbe("127.0.0.1")
    port = await probe.expect()
    sent = await TcpPath().send("127.0.0.1", port)
    assert sent.frames is Frames.PASSED and sent.segment and sent.segment > 1000


async def test_packets_that_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver whose kernel acknowledges nothing more: its buffer is full, and nobody reads."""
    monkeypatch.setattr(frames, "ACKNOWLEDGED_S", 0.2)
    monkeypatch.setattr(frames, "_unacknowledged", lambda sending: len(frames.PAYLOAD))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        path = asyncio.create_task(TcpPath().send("127.0.0.1", listening.getsockname()[1]))
        came, _ = await asyncio.get_running_loop().sock_accept(listening)
        came.send(b"sterna\n")
        assert (await path).frames is Frames.LOST
        came.close()


async def test_a_reset_means_that_something_was_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        path = asyncio.create_task(TcpPath().send("127.0.0.1", listening.getsockname()[1]))
        came, _ = await asyncio.get_running_loop().sock_accept(listening)
        came.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        came.send(b"sterna\n")
        while not await asyncio.get_running_loop().sock_recv(came, 1):
            pass
        came.close()
        assert (await path).frames is Frames.PASSED


async def test_a_port_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "CONNECT_S", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        sent = await TcpPath().send("127.0.0.1", taken.getsockname()[1])
    assert (sent.frames, sent.segment) == (Frames.UNKNOWN, None)
    assert await TcpPath().resolve("10.0.0.1") == "" and "resolved" in await TcpPath().resolve("none.invalid")
