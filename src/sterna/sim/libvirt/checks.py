"""What a simulated hypervisor has against a guest that wants to come."""

from __future__ import annotations

from collections.abc import Iterator

from sterna.domain.model import Refusal, Vm
from sterna.sim.world.host import SimHost

TCG_NEEDS_QEMU = 8_000_000


def refusals(host: SimHost, vm: Vm) -> Iterator[Refusal]:
    """Every reason at once; changes nothing."""
    yield from _identity(host, vm)
    if vm.virt_type not in host.virt_types:
        yield Refusal(
            code="virt-type-missing",
            message=f"{host.name} cannot run {vm.virt_type} guests",
            fix=f"choose a host with {vm.virt_type}",
        )
    if vm.virt_type == "qemu" and host.qemu_version < TCG_NEEDS_QEMU:
        yield Refusal(
            code="qemu-too-old",
            message=f"QEMU on {host.name} is older than 8 and loses pages of software-emulated guests",
            fix="install QEMU 8 or newer there",
        )
    if vm.machine and vm.machine not in host.machines:
        yield Refusal(
            code="machine-type-missing",
            message=f"{host.name} does not know machine type {vm.machine}",
            fix="install a QEMU there that knows it",
        )
    if vm.emulator and vm.emulator not in host.emulators:
        yield Refusal(
            code="emulator-missing",
            message=f"{host.name} has no {vm.emulator}",
            fix="install it there",
        )
    if vm.cpu_xml and vm.cpu_xml in host.refused_cpus:
        yield Refusal(
            code="cpu-incompatible",
            message=f"the CPU of {host.name} lacks features that the guest uses",
            fix="choose a host with a like CPU",
        )


def _identity(host: SimHost, vm: Vm) -> Iterator[Refusal]:
    for domain in host.domains.values():
        if domain.uuid == vm.uuid:
            yield Refusal(
                code="uuid-taken",
                message=f"{host.name} already has a domain with UUID {vm.uuid} ({domain.state})",
                fix="look at it with `sterna audit`, then undefine it there",
            )
        elif domain.definition.name == vm.name:
            yield Refusal(
                code="name-taken",
                message=f"{host.name} already has another domain named {vm.name}",
                fix="rename one of the two",
            )
