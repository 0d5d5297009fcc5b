"""The CPU of a guest that sees its host's as it is (`host-passthrough`, `maximum`). Blocking calls.

libvirt compares nothing for such a guest, and QEMU starts it with what the destination has. The guest goes on with
the instructions it found when it booted, and crashes, at some time, at the first that is missing. So the source
says what its CPU is, as libvirt expands it for `host-model`, and the destination compares that.
"""

from __future__ import annotations

import libvirt
from lxml import etree

from sterna.adapters.libvirt.host_cpu import lacking
from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.domain.cpus import named
from sterna.domain.model import Refusal, Vm

_AS_THE_HOST = ("host-passthrough", "maximum")
_WITHOUT = ("disable", "forbid")


def sees_host(vm: Vm) -> bool:
    """Does the guest see the CPU of its host, under KVM? (Software emulation makes its own.)"""
    return vm.virt_type == "kvm" and bool(vm.cpu_xml) and parse_xml(vm.cpu_xml).get("mode") in _AS_THE_HOST


def host_cpu(conn: Connect, vm: Vm) -> str:
    """What such a guest sees here, as a CPU that can be compared; '' for any other, or where libvirt does not know.

    Raises libvirtError."""
    if not sees_host(vm):
        return ""
    capabilities = conn.getDomainCapabilities(vm.emulator or None, vm.arch, vm.machine or None, vm.virt_type, 0)
    return expanded(capabilities, vm.cpu_xml)


def expanded(domain_capabilities: str, guest: str) -> str:
    """The host's model with its features, less those that the guest's own definition takes away. Pure."""
    mode = parse_xml(domain_capabilities).find("cpu/mode[@name='host-model'][@supported='yes']")
    if mode is None or not mode.findtext("model"):
        return ""
    hidden = {f.get("name") for f in parse_xml(guest).iterfind("feature") if f.get("policy") in _WITHOUT}
    cpu = etree.Element("cpu", mode="custom", match="exact")
    etree.SubElement(cpu, "model", fallback="forbid").text = mode.findtext("model")
    if vendor := mode.findtext("vendor"):
        etree.SubElement(cpu, "vendor").text = vendor
    named = set()
    for feature in mode.iterfind("feature"):
        name = feature.get("name", "")
        named.add(name)
        policy = "disable" if name in hidden else feature.get("policy", "require")
        etree.SubElement(cpu, "feature", policy=policy, name=name)
    for name in sorted(str(name) for name in hidden - named):
        etree.SubElement(cpu, "feature", policy="disable", name=name)
    return etree.tostring(cpu, encoding="unicode")


def compare(conn: Connect, vm: Vm, cpu: str) -> list[Refusal]:
    """Has this host all that `cpu` has, the one the guest sees now? Raises libvirtError."""
    where = (vm.emulator or None, vm.arch, vm.machine or None, vm.virt_type)
    try:
        conn.compareHypervisorCPU(*where, cpu, libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_CPU_INCOMPATIBLE:
            raise
        return [another_cpu(vm, in_words(error.get_error_message(), lacking(conn, where, cpu)))]
    return []


def in_words(libvirts: str, missing: tuple[str, ...]) -> str:
    """What is wrong with a CPU: each missing feature where they are known, else in libvirt's words."""
    return f"it lacks {named(missing)}" if missing else libvirts


def another_cpu(vm: Vm, words: str) -> Refusal:
    """libvirt would move it nevertheless."""
    mode = parse_xml(vm.cpu_xml).get("mode")
    message = (
        f"{vm.name} sees its host's CPU as it is ({mode}), and this host's is another one ({words}): libvirt "
        "compares nothing for such a guest, and it may crash when it uses what it no longer has"
    )
    fix = (
        "choose a host with the same CPU; or give the VM a named model (or host-model) while it is off; or take "
        "the risk: --accept cpu"
    )
    return Refusal(code="cpu-not-the-same", message=message, fix=fix)
