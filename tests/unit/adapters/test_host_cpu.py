"""A host's CPU, as libvirt describes it: read seldom, and compared feature by feature."""

from __future__ import annotations

import time
from typing import Any

import libvirt
import pytest

from sterna.adapters.libvirt.cpus import in_words
from sterna.adapters.libvirt.host_cpu import KEPT_S, HostCpus, lacking
from sterna.adapters.libvirt.xml.metadata import parse_xml

TOLD = """<domainCapabilities><domain>kvm</domain><arch>x86_64</arch><cpu>
<mode name='host-model' supported='yes'><model fallback='forbid'>Skylake-Client-IBRS</model><vendor>Intel</vendor>
<feature policy='require' name='ss'/><feature policy='disable' name='hle'/></mode>
<mode name='custom' supported='yes'><model usable='yes'>Nehalem</model><model usable='no'>EPYC</model>
<model usable='yes'>Haswell</model></mode></cpu></domainCapabilities>"""
MODELS = {"Skylake-Client-IBRS": ("aes", "avx", "hle"), "Icelake-Server": ("aes", "avx", "avx512f", "avx512bw")}
WHERE = (None, "x86_64", None, "kvm")


class Host:
    """libvirt of a host. `fails`: it cannot expand a CPU."""

    def __init__(self, told: str = TOLD, *, fails: bool = False) -> None:
        self.told, self.fails, self.asked = told, fails, 0

    def getDomainCapabilities(self, *_: Any) -> str:
        self.asked += 1
        return self.told

    def baselineHypervisorCPU(self, *asked: Any) -> str:
        *where, cpus, flags = asked
        assert tuple(where) == WHERE and flags == libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
        if self.fails:
            raise libvirt.libvirtError("this function is not supported by the connection driver")
        (cpu,) = map(parse_xml, cpus)
        policies = dict.fromkeys(MODELS[cpu.findtext("model", "")], "require")
        policies |= {str(f.get("name")): str(f.get("policy")) for f in cpu.iterfind("feature")}
        features = "".join(f"<feature policy='{policy}' name='{name}'/>" for name, policy in policies.items())
        return f"<cpu mode='custom'><model>{cpu.findtext('model')}</model>{features}</cpu>"


def test_the_cpu_has_the_features_of_its_model_less_what_is_disabled() -> None:
    cpu = HostCpus().read(Host(), "caps")
    assert cpu is not None
    assert (cpu.arch, cpu.virt_type, cpu.vendor, cpu.model) == ("x86_64", "kvm", "Intel", "Skylake-Client-IBRS")
    assert cpu.features == ("aes", "avx", "ss") and cpu.models == ("Haswell", "Nehalem")


def test_it_is_read_again_after_a_change_or_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    cpus, host = HostCpus(), Host()
    for capabilities, later, asked in (("a", 0.0, 1), ("a", 1.0, 1), ("b", 1.0, 2), ("b", KEPT_S + 1, 3)):
        now += later
        cpus.read(host, capabilities)
        assert host.asked == asked


@pytest.mark.parametrize(
    "host",
    [
        Host(fails=True),
        Host("<domainCapabilities><cpu><mode name='host-model' supported='no'/></cpu></domainCapabilities>"),
        Host("<domainCapabilities/>"),
        Host("no XML"),
    ],
)
def test_a_libvirt_that_cannot_describe_it_is_asked_seldom(host: Host) -> None:
    cpus = HostCpus()
    assert cpus.read(host, "caps") is None and cpus.read(host, "caps") is None
    assert host.asked == 1


def test_each_missing_feature_is_named() -> None:
    wanted = (
        "<cpu mode='custom' match='exact'><model>Icelake-Server</model><feature policy='require' name='hle'/></cpu>"
    )
    missing = lacking(Host(), WHERE, wanted)
    assert missing == ("avx512bw", "avx512f", "hle")
    assert in_words("libvirt's words", missing) == "it lacks avx512bw, avx512f, hle"


def test_where_the_features_are_not_known_libvirts_words_are_kept() -> None:
    assert lacking(Host(fails=True), WHERE, "<cpu><model>Icelake-Server</model></cpu>") == ()
    assert lacking(Host("<domainCapabilities/>"), WHERE, "<cpu><model>Icelake-Server</model></cpu>") == ()
    assert in_words("libvirt's words", ()) == "libvirt's words"
