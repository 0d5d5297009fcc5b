"""CPUs in libvirt's XML: the one that a host gives a guest with `host-model`, and the features of any. Pure."""

from __future__ import annotations

from lxml import etree

from sterna.adapters.libvirt.xml.metadata import Element, parse_xml, to_text
from sterna.domain.cpus import HostCpu

_HAS = frozenset({"require", "force"})


def host_model(domain_capabilities: Element) -> str:
    """The host's CPU as libvirt names it for `host-model`; '' where it cannot."""
    mode = domain_capabilities.find("cpu/mode[@name='host-model'][@supported='yes']")
    if mode is None or not mode.findtext("model"):
        return ""
    cpu = etree.Element("cpu", mode="custom", match="exact")
    etree.SubElement(cpu, "model", fallback="forbid").text = mode.findtext("model")
    if vendor := mode.findtext("vendor"):
        etree.SubElement(cpu, "vendor").text = vendor
    for feature in mode.iterfind("feature"):
        policy = feature.get("policy", "require")
        etree.SubElement(cpu, "feature", policy=policy, name=feature.get("name", ""))
    return to_text(cpu)


def features_of(expanded: str) -> tuple[str, ...]:
    """What a CPU has, of a definition that names each feature; sorted."""
    found = (f.get("name", "") for f in parse_xml(expanded).iterfind("feature") if f.get("policy") in _HAS)
    return tuple(sorted({name for name in found if name}))


def read_host_cpu(domain_capabilities: Element, expanded: str) -> HostCpu:
    """The host's CPU. `expanded`: its `host_model` with each feature."""
    mode = domain_capabilities.find("cpu/mode[@name='host-model']")
    models = domain_capabilities.iterfind("cpu/mode[@name='custom']/model")
    return HostCpu(
        arch=domain_capabilities.findtext("arch", ""),
        virt_type=domain_capabilities.findtext("domain", ""),
        model=mode.findtext("model", "") if mode is not None else "",
        vendor=mode.findtext("vendor", "") if mode is not None else "",
        features=features_of(expanded),
        models=tuple(sorted({m.text for m in models if m.text and m.get("usable") == "yes"})),
    )
