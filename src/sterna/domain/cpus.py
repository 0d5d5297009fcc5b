"""The CPUs of a fleet: what all hosts have in common, and which hosts cannot exchange a guest that sees its host's.

A guest with `host-model`, `host-passthrough` or `maximum` goes on with the features it found when it booted. So it
may go wherever all of them are. Hosts with equal CPUs are one group: a fleet of 1,000 hosts has a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sterna.domain.errors import BadRequest
from sterna.domain.model import Value

MOST_FEATURES = 1_000
"""Of a CPU, and as many models. libvirt knows a few hundred."""
MOST_PAIRS = 1_000
"""That are listed."""
_LONGEST_WORD = 64
_NAMED = 12
"""Features that a sentence names."""


class HostCpu(Value):
    """What one host's hypervisor gives a guest with `host-model`, and which named models it can give."""

    arch: str
    virt_type: str
    """`kvm`, or `qemu` where the host has only software emulation."""
    model: str
    """The named model that is nearest to it."""
    vendor: str = ""
    features: tuple[str, ...]
    """All of them, those of the model included; sorted."""
    models: tuple[str, ...] = ()
    """Named models that a guest can have here; sorted."""

    @property
    def text(self) -> str:
        """The same for equal CPUs only, as long as no word has a space. Its digest is the CPU's id."""
        words = (self.arch, self.virt_type, self.vendor, self.model)
        return "\n".join((*words, " ".join(self.features), " ".join(self.models)))


def described(raw: object) -> HostCpu:
    """A host's description of its CPU, as it came. Raises BadRequest."""
    try:
        cpu = HostCpu.model_validate(raw)
    except ValueError as error:
        raise BadRequest("the description of its CPU cannot be read") from error
    words = (cpu.arch, cpu.virt_type, cpu.model, cpu.vendor, *cpu.features, *cpu.models)
    few = len(cpu.features) <= MOST_FEATURES and len(cpu.models) <= MOST_FEATURES
    if not few or not all(map(_is_word, words)):
        raise BadRequest("the description of its CPU has too much in it, or what is no word")
    return cpu


def _is_word(text: str) -> bool:
    return len(text) <= _LONGEST_WORD and text.isprintable() and " " not in text


class CpuGroup(Value):
    """Hosts with equal CPUs."""

    number: int
    """From 1; the largest group first."""
    hosts: tuple[str, ...]
    cpu: HostCpu
    beyond: tuple[str, ...] = ()
    """Features that not all hosts have."""


class CpuPair(Value):
    """A guest that sees the CPU of a host of the first group cannot go to a host of the second."""

    source: int
    destination: int
    why: str = ""
    """What is different besides features; '' for nothing."""
    missing: tuple[str, ...] = ()
    """Features of the first that the second lacks."""


class CpuComparison(Value):
    """The CPUs of a fleet, side by side."""

    groups: tuple[CpuGroup, ...]
    features: tuple[str, ...] = ()
    """That all hosts have."""
    models: tuple[str, ...] = ()
    """Named models that all hosts can give a guest."""
    pairs: tuple[CpuPair, ...] = ()
    pairs_left_out: int = 0
    """Pairs beyond `MOST_PAIRS`."""
    unknown: dict[str, str] = {}
    """Hosts whose CPUs are not known, and why."""


def compare(known: Iterable[tuple[HostCpu, Iterable[str]]], unknown: Mapping[str, str]) -> CpuComparison:
    """Of groups of hosts with equal CPUs."""
    hosts_of = [(cpu, tuple(sorted(hosts))) for cpu, hosts in known]
    hosts_of.sort(key=lambda one: (-len(one[1]), one[1]))
    if not hosts_of:
        return CpuComparison(groups=(), unknown=dict(unknown))
    cpus = [cpu for cpu, _ in hosts_of]
    common = set.intersection(*(set(cpu.features) for cpu in cpus))
    groups = tuple(
        CpuGroup(number=number, hosts=hosts, cpu=cpu, beyond=tuple(sorted(set(cpu.features) - common)))
        for number, (cpu, hosts) in enumerate(hosts_of, start=1)
    )
    pairs, left_out = _pairs(cpus)
    return CpuComparison(
        groups=groups,
        features=tuple(sorted(common)),
        models=tuple(sorted(set.intersection(*(set(cpu.models) for cpu in cpus)))),
        pairs=pairs,
        pairs_left_out=left_out,
        unknown=dict(unknown),
    )


def _pairs(cpus: list[HostCpu]) -> tuple[tuple[CpuPair, ...], int]:
    """Each feature is a bit of a number: a few hundred different CPUs are many thousand pairs."""
    bit = {name: 1 << n for n, name in enumerate({name for cpu in cpus for name in cpu.features})}
    sets = [sum(bit[name] for name in set(cpu.features)) for cpu in cpus]
    found: list[CpuPair] = []
    number = 0
    for one, source in enumerate(cpus):
        for other, destination in enumerate(cpus):
            why = _why(source, destination) if one != other else ""
            lacks = sets[one] & ~sets[other]
            if not why and not lacks:
                continue
            number += 1
            if len(found) < MOST_PAIRS:
                missing = missing_of(source.features, destination.features)
                found.append(CpuPair(source=one + 1, destination=other + 1, why=why, missing=missing))
    return tuple(found), number - len(found)


def _why(source: HostCpu, destination: HostCpu) -> str:
    if source.arch != destination.arch:
        return f"{destination.arch}, not {source.arch}"
    if source.virt_type != destination.virt_type:
        return f"virtualisation of type {destination.virt_type}, not {source.virt_type}"
    return f"a CPU of {destination.vendor}, not of {source.vendor}" if source.vendor != destination.vendor else ""


def missing_of(wanted: Iterable[str], there: Iterable[str]) -> tuple[str, ...]:
    """Features that a guest has and would miss; sorted."""
    return tuple(sorted(set(wanted) - set(there)))


def named(features: tuple[str, ...]) -> str:
    """Some of them for a sentence: `avx512bw, avx512f and 14 more`."""
    shown = ", ".join(features[:_NAMED])
    return f"{shown} and {len(features) - _NAMED} more" if len(features) > _NAMED else shown
