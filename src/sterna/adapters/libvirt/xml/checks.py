"""What one host's libvirt has against running a VM (`check_incoming`). Pure: XML and numbers in, refusals out."""

from __future__ import annotations

from lxml import etree

from sterna.adapters.libvirt.xml.metadata import Element, parse_xml
from sterna.domain.model import Refusal, Vm
from sterna.domain.next_start import ONLY_PERSISTENT

_OLDEST_TCG_QEMU = 8_000_000
"""QEMU 7.2 lost pages of software-emulated guests in 7 of 16 migrations, 10.0.2 in none of 20 (field notes)."""


def against_version(vm: Vm, qemu_version: int) -> list[Refusal]:
    """Software emulation on a QEMU whose dirty tracking loses pages of such guests."""
    if vm.virt_type != "qemu" or qemu_version >= _OLDEST_TCG_QEMU:
        return []
    major, minor = divmod(qemu_version // 1000, 1000)
    message = f"QEMU {major}.{minor} loses memory pages when it migrates a software-emulated guest"
    return [Refusal(code="qemu-too-old", message=message, fix="install QEMU 8 or newer, or use KVM")]


def against_capabilities(vm: Vm, capabilities_xml: str) -> list[Refusal]:
    """Architecture, virtualisation type and machine type."""
    guest = _guest(parse_xml(capabilities_xml), vm.arch)
    if guest is None:
        message = f"this host cannot run {vm.arch} guests"
        return [Refusal(code="arch-unsupported", message=message, fix=f"install QEMU for {vm.arch}")]
    found = []
    domain = guest.find(f"domain[@type='{vm.virt_type}']")
    if domain is None:
        message = f"this host has no virtualisation of type {vm.virt_type}"
        fix = "enable virtualisation in the firmware and load the kvm module" if vm.virt_type == "kvm" else ""
        found.append(Refusal(code="virt-type-missing", message=message, fix=fix))
    machines = {m.text for m in guest.findall("machine")}
    if domain is not None:
        machines |= {m.text for m in domain.findall("machine")}
    if vm.machine and vm.machine not in machines:
        message = f"machine type {vm.machine} is not available on this host"
        fix = "install a QEMU that has it, or give the VM an older machine type while it is off"
        found.append(Refusal(code="machine-type-missing", message=message, fix=fix))
    return found


def against_next_start(vm: Vm, capabilities_xml: str) -> list[Refusal]:
    """The machine type of a persistent definition that was changed while the guest ran."""
    if not vm.next_start.machine:
        return []
    later = vm.model_copy(update={"machine": vm.next_start.machine})
    return [
        refusal.model_copy(update={"message": f"{refusal.message} {ONLY_PERSISTENT}"})
        for refusal in against_capabilities(later, capabilities_xml)
        if refusal.code == "machine-type-missing"
    ]


def against_cpu_model(vm: Vm, domain_capabilities_xml: str) -> list[Refusal]:
    """For software emulation: QEMU must know the model; the host's own CPU does not matter."""
    model = cpu_model(vm)
    if model is None:
        return []
    custom = _custom_models(domain_capabilities_xml)
    if custom is None:
        return [_cpu_refusal(f"this host's QEMU supports no named CPU models, the VM has {model}")]
    if _model_of(custom, model) is None:
        return [_cpu_refusal(f"this host's QEMU does not know CPU model {model}")]
    return []


def gives_all_of(vm: Vm, domain_capabilities_xml: str) -> bool:
    """Does QEMU here emulate every feature of the VM's CPU model? Where not, the VM may still run without some:
    its running definition names them as disabled."""
    custom, model = _custom_models(domain_capabilities_xml), cpu_model(vm)
    known = None if custom is None or model is None else _model_of(custom, model)
    return model is None or (known is not None and known.get("usable") != "no")


def _custom_models(domain_capabilities_xml: str) -> Element | None:
    custom = parse_xml(domain_capabilities_xml).find("cpu/mode[@name='custom']")
    return custom if custom is not None and custom.get("supported") == "yes" else None


def _model_of(custom: Element, model: str) -> Element | None:
    return next((known for known in custom.iterfind("model") if known.text == model), None)


def cpu_refused(words: str) -> Refusal:
    """libvirt compared the VM's CPU with what this host can give: it does not fit."""
    return _cpu_refusal(f"this host cannot give the VM its CPU: {words}")


def cpu_model(vm: Vm) -> str | None:
    """The named model of a custom CPU; None for none, host-passthrough and the like."""
    if not vm.cpu_xml:
        return None
    cpu = parse_xml(vm.cpu_xml)
    return cpu.findtext("model") if cpu.get("mode", "custom") == "custom" else None


def comparable_cpu(vm: Vm) -> bool:
    """Is there something for libvirt to compare? `host-passthrough` names no features."""
    return cpu_model(vm) is not None


def _cpu_refusal(message: str) -> Refusal:
    return Refusal(code="cpu-incompatible", message=message, fix="choose a host of the same CPU generation")


def _guest(capabilities: Element, arch: str) -> Element | None:
    """The <arch> element of hardware-virtualised guests of this architecture."""
    for found in capabilities.iterfind("guest"):
        inner = found.find(f"arch[@name='{arch}']")
        if found.findtext("os_type") == "hvm" and isinstance(inner, etree._Element):
            return inner
    return None
