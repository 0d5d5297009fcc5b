"""The floor: two bare QEMUs and their monitors. What any orchestrator adds to this is its own.

The destination's QEMU is started, the copy made, the source's QEMU ended and its port removed: what a person with
two shells would do.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from qemu.qmp.legacy import QEMUMonitorProtocol

from bench.arms import LONGEST_S, MAX_DOWNTIME_MS, Arm, Load
from sterna.lab.domain_xml import command_line, disk_path
from sterna.lab.errors import LabError
from sterna.lab.guest_view import Guest
from sterna.lab.lab import Lab
from sterna.lab.places import GUEST, TENANT_VLAN

_FOLDER = "log/libvirt/qemu"
"""Below a host's root; /var/log/libvirt/qemu inside: seen from both sides, for the monitors' sockets."""
_PORT = 49300
"""Beside libvirt's own range."""
_OFF = ("csum", "gso", *(f"host_{what}" for what in ("tso4", "tso6", "ecn", "ufo")),
        *(f"guest_{what}" for what in ("csum", "tso4", "tso6", "ecn", "ufo")))  # fmt: skip
"""As the lab's guests have them: user-space Open vSwitch passes unfinished checksums on as they are."""


class _Monitor(QEMUMonitorProtocol):
    """Closed by hand; the library's own closing at the very end complains of a QEMU that has hung up."""

    def __del__(self) -> None:
        """Nothing is left to do."""


class Qmp(Arm):
    """QEMU to QEMU. One guest only."""

    name = "qmp"

    def __init__(self, lab: Lab, load: Load) -> None:
        self._monitors: dict[str, QEMUMonitorProtocol] = {}
        self._stats: dict[str, Any] = {}
        super().__init__(lab, load)

    def rest(self) -> None:
        """The first time: take the guest out of libvirt's hands and start it anew. Then pause it."""
        host, guest = self.lab.hosts[self.here], self.guests[0]
        if not self._monitors:
            host.virsh("destroy", guest.name)
            host.virsh("undefine", guest.name)
            self._start(self.here)
            guest.status(timeout=60.0)
        self._monitors[self.here].cmd("stop")

    def wake(self) -> None:
        """Let it run."""
        self._monitors[self.here].cmd("cont")

    def runs_on(self, guest: Guest) -> list[str]:
        """Asked of both monitors."""
        return [name for name, monitor in self._monitors.items() if _asked(monitor, "query-status")["running"]]

    def move(self, there: str) -> None:
        """Raises LabError where QEMU gives up."""
        source, destination = self._monitors[self.here], self._start(there, incoming=True)
        source.cmd("migrate-set-parameters", **{"downtime-limit": MAX_DOWNTIME_MS, "max-bandwidth": 0})
        source.cmd("migrate", uri=f"tcp:{self.lab.hosts[there].address}:{_PORT}")
        self._await(destination, "RESUME")
        self._stats = _asked(source, "query-migrate")
        source.cmd("quit")
        with contextlib.suppress(EOFError):  # it has hung up, as it was told
            source.close()
        del self._monitors[self.here]
        self._unplug(self.here)

    def end(self) -> None:
        """No more moves: hang up before the lab ends the QEMU."""
        for monitor in self._monitors.values():
            monitor.close()

    def job(self, guest: Guest) -> dict[str, float]:
        """As QEMU tells."""
        return {"Time elapsed": self._stats["total-time"], "Total downtime": self._stats["downtime"]}

    def _await(self, monitor: QEMUMonitorProtocol, event: str) -> None:
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline:
            told = monitor.pull_event(wait=LONGEST_S)
            if told and told["event"] == event:
                return
        raise LabError(f"QEMU did not tell {event} within {LONGEST_S:g} s")

    def _start(self, name: str, *, incoming: bool = False) -> QEMUMonitorProtocol:
        host, record = self.lab.hosts[name], self.lab.guest_records()[self.guests[0].name]
        plug = (
            "ip tuntap add tapqmp mode tap vnet_hdr && ip link set tapqmp up && "
            f"ovs-vsctl add-port br-int tapqmp tag={TENANT_VLAN}"
        )
        host.run(["sh", "-c", plug])
        inside = f"/var/{_FOLDER}/qmp.sock"
        off = ",".join(f"{name}=off" for name in _OFF)
        argv = ["qemu-system-x86_64", "-nodefaults", "-display", "none",
                "-machine", f"q35,accel={self.lab.accelerator}", "-m", str(record.memory_mib),
                "-smp", "1", "-kernel", f"{GUEST}/vmlinuz",
                "-initrd", f"{GUEST}/initramfs", "-append", command_line(record),
                "-netdev", "tap,id=n0,ifname=tapqmp,script=no,downscript=no",
                "-device", f"virtio-net-pci,netdev=n0,mac={record.mac},{off}",
                "-serial", f"file:/var/{_FOLDER}/qmp-serial.log",
                "-qmp", f"unix:{inside},server=on,wait=off"]  # fmt: skip
        for disk in record.disks:
            argv += ["-drive", f"if=none,id={disk.device},format=qcow2,cache=none,file={disk_path(record, disk)}"]
            argv += ["-device", f"virtio-blk-pci,drive={disk.device},serial={disk.id[:20]}"]
        if incoming:
            argv += ["-incoming", f"tcp:{host.address}:{_PORT}"]
        socket = host.root / _FOLDER / "qmp.sock"
        socket.unlink(missing_ok=True)
        host.inside.detach(argv, host.root / _FOLDER / "qmp.log")
        monitor = _Monitor(str(socket), nickname=name)
        self._connect(monitor, socket)
        self._monitors[name] = monitor
        return monitor

    def _connect(self, monitor: QEMUMonitorProtocol, socket: Path) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                monitor.connect()
                return
            except Exception as error:  # the library has no common class for "not there yet"
                if time.monotonic() > deadline:
                    raise LabError(f"no monitor at {socket}: {error}") from error
            time.sleep(0.005)

    def _unplug(self, name: str) -> None:
        self.lab.hosts[name].run(["sh", "-c", "ovs-vsctl del-port br-int tapqmp; ip link del tapqmp"])


def _asked(monitor: QEMUMonitorProtocol, query: str) -> dict[str, Any]:
    answer = monitor.cmd(query)
    assert isinstance(answer, dict), answer
    return answer
