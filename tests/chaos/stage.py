"""One lab for all cases, and one guest at a time; what both hosts look like without it and with it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sterna.lab.guest_view import Guest
from sterna.lab.lab import Lab
from sterna.lab.record import Pace
from tests.chaos.scene import Scene
from tests.e2e.conftest import Fleet

STATE = Path(".lab-test/chaos")
MEMORY_MIB, DIRTY_MIB_S = 160, 5
DATA_MIB = 96
"""On a local disk, beyond what the guest itself writes."""
SETTLE_S = 15.0
"""For what no journal tells of: libvirtd ends a QEMU, the agent sweeps the tap of a guest that ended (6 s)."""


class Stage:
    """The lab is made when it is first needed, and again after a case that left it dirty."""

    def __init__(self, state: Path = STATE) -> None:
        self._state = state
        self._fleet: Fleet | None = None
        self._guest: Guest | None = None
        self._disks: tuple[str, ...] = ()
        self.empty: dict[str, dict[str, Any]] = {}
        """Each host without any guest."""
        self.settled: dict[str, dict[str, Any]] = {}
        """Each host with the guest on it, after a migration to it without any fault."""
        self.shared: list[str] = []
        """The shared folder with the guest's disk alone."""

    @property
    def fleet(self) -> Fleet:
        if self._fleet is None:
            self._fleet = Fleet(Lab.up(self._state, owner=True))
            self.empty = self._fleet.snapshots()
        return self._fleet

    @property
    def guest(self) -> Guest:
        assert self._guest is not None, "no guest was asked for yet"
        return self._guest

    def set(self, disks: tuple[str, ...]) -> Scene:
        """The next case's scene: a guest with these disks, wherever it is, and the other host its destination."""
        fleet = self.fleet
        if self._guest is None or self._disks != disks:
            self._change_guest(disks)
        (here,) = fleet.lab.hosts_running(self.guest.name)
        return Scene(fleet, self.guest, here, fleet.other(here))

    def close(self) -> None:
        """The lab is taken down. The next case, if there is one, gets a new one."""
        if self._fleet is not None:
            self._fleet.api.close()
            self._fleet.lab.down()
        self._fleet = self._guest = None

    def keep_evidence(self, folder: Path) -> None:
        """Logs and journals, for whoever wants to know what happened: the next lab deletes them."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        state = self._state.absolute()
        for path in [*state.glob("logs/*.log"), *state.glob("controller.db*")]:
            shutil.copy(path, folder)
        for host in state.glob("hosts/host*"):
            for path in [*host.glob("state/*"), *host.glob("log/libvirt/*.log"), *host.glob("log/libvirt/qemu/*")]:
                if path.is_file():
                    shutil.copy(path, folder / f"{host.name}-{path.name}")

    def _change_guest(self, disks: tuple[str, ...]) -> None:
        fleet, lab = self.fleet, self.fleet.lab
        if self._guest is not None:
            fleet.remove(self._guest)
            self._guest = None
        until(lambda: fleet.snapshots() == self.empty, "the hosts are not empty without the guest")
        # a witness sees a guest by its work: disks are work, but for those a guest has not
        pace: Pace = "usual" if len(disks) > 1 else "busy"
        self._guest = lab.create_vm("chaos", "host1", MEMORY_MIB, DIRTY_MIB_S, disks, autostart=True, pace=pace)
        self._disks, self.shared = disks, lab.shared_files()
        if "local" in disks:
            _put_data_on(lab, self.guest, disks.index("local"))
        for here in ("host2", "host1"):
            migration = fleet.started(self.guest.name, here)
            fleet.wait_closed(migration)
            assert fleet.wait(migration)["status"] == "completed"
            self.settled[here] = lab.snapshot(here)


def _put_data_on(lab: Lab, guest: Guest, position: int) -> None:
    """Data on a disk of a guest on host1, written by its QEMU: of the 4 MiB that the guest itself uses the copy is
    over before anything can go wrong with it."""
    device = f"/machine/peripheral/virtio-disk{position}/virtio-backend"
    command = f'qemu-io -d {device} "write -P 90 16M {DATA_MIB}M"'
    lab.hosts["host1"].virsh("qemu-monitor-command", guest.name, "--hmp", command)
    until(lambda: sum(lab.allocated_bytes("host1").values()) > DATA_MIB << 20, "the data are not on the disk")


def until(holds: Callable[[], bool], otherwise: str, seconds: float = SETTLE_S) -> None:
    """Wait for something that no event tells of."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)
