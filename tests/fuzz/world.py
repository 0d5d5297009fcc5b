"""Three guests of the lab, and whether each still runs once, in the same boot."""

from __future__ import annotations

import time
from collections.abc import Iterator

from sterna.lab.lab import Lab

GUESTS = {"web1": ("shared",), "db1": ("local",), "app1": ("iscsi",)}
"""web1 is the VM of the examples in the API's document."""


class GuestsAsTheyWere:
    """The guests, made here on host1."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._guests = [lab.create_vm(name, "host1", 128, 2, disks) for name, disks in GUESTS.items()]
        self._boots = {guest.name: guest.status(timeout=60).boot_id for guest in self._guests}

    def differences(self, timeout: float = 120.0) -> list[str]:
        """What is not as it was, once every migration has ended."""
        deadline = time.monotonic() + timeout
        while (found := list(self._look())) and time.monotonic() < deadline:
            time.sleep(0.5)
        return found

    def _look(self) -> Iterator[str]:
        for guest in self._guests:
            hosts = [name for name, host in self._lab.hosts.items() if _runs(self._lab, name, guest.name)]
            if len(hosts) != 1:
                yield f"{guest.name} runs on {hosts or 'no host'}"
                continue
            if guest.status(timeout=60).boot_id != self._boots[guest.name]:
                yield f"{guest.name} was started anew"


def _runs(lab: Lab, host: str, guest: str) -> bool:
    return guest in lab.hosts[host].virsh("list", "--name", "--state-running").split()
