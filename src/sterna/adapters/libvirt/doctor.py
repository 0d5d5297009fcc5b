"""What the doctor looks at in libvirt and its settings. Changes nothing."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from sterna.adapters.libvirt.qemu import certificates
from sterna.adapters.libvirt.qemu.conf import QEMU_CONF, list_of, settings_of
from sterna.adapters.libvirt.qemu.probe import stream_ports, streams_of
from sterna.adapters.libvirt.session.connection import Connection
from sterna.adapters.libvirt.shared_folders import SHARED_TYPES
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.domain.model import Data
from sterna.kit.mounts import mount_of
from sterna.kit.threads import in_thread
from sterna.ports.doctor import Part

LOOK_S = 10.0
MOST_FOLDERS = 8
DEFAULT_REQUESTS = 5
"""libvirt's own, where the daemon's file does not say."""
_ETC = Path("/etc/libvirt")
_DAEMONS = {
    "libvirtd.conf": ("run/libvirtd.pid", "run/libvirt/libvirtd.pid"),
    "virtqemud.conf": ("run/virtqemud.pid",),
}
"""The settings of the daemon that starts guests, and where that daemon leaves its process id."""
_REQUESTS = re.compile(r"^\s*max_client_requests\s*=\s*(\d+)", re.MULTILINE)
_SERVER_CERTIFICATE = Path("/etc/pki/libvirt/servercert.pem")
"""libvirt's own place, where the daemon's file names none."""


class LibvirtLooks:
    """Of one host. `system`: its root folder, another one in tests."""

    def __init__(self, uri: str, *, etc: Path = _ETC, system: Path = Path("/")) -> None:
        self._uri, self._etc, self._system = uri, etc, system

    def parts(self) -> tuple[Part, ...]:
        """All of it."""
        settings = partial(in_thread, self.settings, name="sterna-doctor", limit_s=LOOK_S)
        return (
            Part("libvirt's capabilities", self.capabilities, of_libvirt=True),
            Part("libvirt's settings", settings),
        )

    async def capabilities(self) -> Data:
        """KVM and security drivers. Raises Unreachable."""
        connection = Connection(self._uri, "sterna-doctor")
        try:
            return read_capabilities(await connection.run(lambda conn: conn.getCapabilities()))
        finally:
            connection.close()

    def settings(self) -> Data:
        """Of libvirtd and of QEMU. A file that cannot be read leaves its part out."""
        ports = stream_ports(self._etc / QEMU_CONF.name)
        return {
            "max_client_requests": self._max_client_requests(),
            "ports": f"{ports.start}-{ports.stop - 1}",
            "ports_free": len(ports) - len(streams_of(ports)),
        }

    def certificate_files(self) -> dict[str, str]:
        """Files of certificates -> what each is for; those that are there."""
        streams = certificates.of_migration(self._etc / QEMU_CONF.name).folder / "server-cert.pem"
        named = settings_of(self._daemons_file()).get("cert_file")
        found = {Path(named) if named else _SERVER_CERTIFICATE: "libvirtd", streams: "QEMU's streams"}
        return {str(file): what for file, what in found.items() if file.is_file()}

    async def shared(self, folders: tuple[str, ...]) -> dict[str, bool]:
        """Implements ports.doctor.Folders."""
        return await in_thread(lambda: self._shared(folders), name="sterna-doctor", limit_s=LOOK_S)

    def _shared(self, folders: tuple[str, ...]) -> dict[str, bool]:
        try:
            named = list_of((self._etc / QEMU_CONF.name).read_text(), "shared_filesystems") or ()
        except OSError:
            named = ()
        kinds = {folder: mount_of(folder).kind in SHARED_TYPES for folder in folders}
        return kinds | dict.fromkeys(named[:MOST_FOLDERS], True)

    def _daemons_file(self) -> Path:
        for name, pid_files in _DAEMONS.items():
            if any((self._system / file).exists() for file in pid_files):
                return self._etc / name
        return self._etc / "libvirtd.conf"

    def _max_client_requests(self) -> int | None:
        try:
            found = _REQUESTS.findall(self._daemons_file().read_text())
        except FileNotFoundError:
            return DEFAULT_REQUESTS
        except OSError:
            return None
        return int(found[-1]) if found else DEFAULT_REQUESTS


def read_capabilities(xml: str) -> Data:
    """KVM and the security drivers, from libvirt's description of the host."""
    capabilities = parse_xml(xml)
    models = [element.text or "" for element in capabilities.iterfind("host/secmodel/model")]
    kvm = any(domain.get("type") == "kvm" for domain in capabilities.iterfind("guest/arch/domain"))
    return {"kvm": kvm, "security_models": tuple(filter(None, models))}
