"""Guests that see their host's CPU: what is compared, and what is said where it is another one."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from sterna.adapters.libvirt.cpus import compare, expanded, host_cpu, sees_host
from sterna.adapters.libvirt.xml.metadata import parse_xml
from sterna.domain.model import GuestState, Vm

TOLD = """<domainCapabilities><cpu><mode name='host-passthrough' supported='yes'/>
<mode name='host-model' supported='yes'><model fallback='forbid'>Skylake-Client-IBRS</model><vendor>Intel</vendor>
<feature policy='require' name='ss'/><feature policy='require' name='vmx'/><feature policy='disable' name='hle'/>
</mode></cpu></domainCapabilities>"""
PASSED = "<cpu mode='host-passthrough' check='none' migratable='on'>%s</cpu>"


def vm(cpu: str, virt_type: str = "kvm") -> Vm:
    return Vm(
        uuid="u", name="tern", state=GuestState.RUNNING, memory_bytes=1, vcpus=1, cpu_xml=cpu, virt_type=virt_type
    )


class Host:
    """libvirt of a host; `refuses`: what it says of any CPU."""

    def __init__(self, told: str = TOLD, refuses: str = "") -> None:
        self.told, self.refuses, self.compared = told, refuses, ""

    def getDomainCapabilities(self, *_: Any) -> str:
        return self.told

    def baselineHypervisorCPU(self, *_: Any) -> str:
        raise libvirt.libvirtError("this function is not supported by the connection driver")

    def compareHypervisorCPU(self, *asked: Any) -> int:
        self.compared = asked[4]
        if self.refuses:
            error = libvirt.libvirtError("")
            error.err = (libvirt.VIR_ERR_CPU_INCOMPATIBLE, 0, self.refuses, 2, "", "", "", 0, 0)
            raise error
        return 2


@pytest.mark.parametrize(
    ("cpu", "virt_type", "sees"),
    [
        (PASSED % "", "kvm", True),
        ("<cpu mode='maximum' migratable='on'/>", "kvm", True),
        ("<cpu mode='maximum' migratable='on'/>", "qemu", False),
        ("<cpu mode='custom'><model>Skylake</model></cpu>", "kvm", False),
        ("<cpu><topology sockets='1' cores='2' threads='1'/></cpu>", "kvm", False),
        ("", "kvm", False),
    ],
)
def test_which_guests_see_their_hosts_cpu(cpu: str, virt_type: str, sees: bool) -> None:
    assert sees_host(vm(cpu, virt_type)) is sees
    assert bool(host_cpu(Host(), vm(cpu, virt_type))) is sees


def test_what_the_guest_sees_is_the_hosts_model_less_what_its_definition_hides() -> None:
    guest = PASSED % "<feature policy='disable' name='vmx'/><feature policy='disable' name='pku'/>"
    cpu = parse_xml(expanded(TOLD, guest))
    assert (cpu.get("mode"), cpu.findtext("model"), cpu.findtext("vendor")) == (
        "custom",
        "Skylake-Client-IBRS",
        "Intel",
    )
    found = {f.get("name"): f.get("policy") for f in cpu.iterfind("feature")}
    assert found == {"ss": "require", "vmx": "disable", "hle": "disable", "pku": "disable"}


def test_a_libvirt_that_cannot_expand_its_cpu_compares_nothing() -> None:
    assert expanded("<domainCapabilities><cpu><mode name='host-model' supported='no'/></cpu></domainCapabilities>",
                    PASSED % "") == ""  # fmt: skip


def test_a_host_with_less_is_refused_in_libvirts_words() -> None:
    guest = vm(PASSED % "")
    lacking = Host(refuses="guest CPU doesn't match specification: missing features: avx512f")
    (found,) = compare(lacking, guest, host_cpu(Host(), guest))
    assert "Skylake-Client-IBRS" in lacking.compared
    assert (found.code, "avx512f" in found.message) == ("cpu-not-the-same", True)
    assert "--accept cpu" in found.fix


def test_a_host_with_as_much_or_more_is_not() -> None:
    guest = vm(PASSED % "")
    assert compare(Host(), guest, host_cpu(Host(), guest)) == []
