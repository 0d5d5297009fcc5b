"""Random VMs: the same seed and number give the same VM. Pure."""

from __future__ import annotations

import random

from tests.random_vms import devices, disks
from tests.random_vms.draft import Draft, Vm


def random_vm(seed: int, number: int) -> Vm:
    """The VM of that number of a seed."""
    draft = Draft(seed, number, random.Random(f"{seed}/{number}"))
    for part in (
        devices.machine,
        disks.disks,
        devices.nics,
        devices.consoles,
        devices.others,
        devices.boot,
        devices.memory,
        devices.state,
    ):
        part(draft)
    return draft.finished()
