"""`/v1/cpus`: what the hosts' CPUs have in common, and which hosts cannot exchange guests that see them."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from sterna.api.access import needs
from sterna.api.dependencies import Served
from sterna.domain.access import Action
from sterna.domain.cpus import CpuComparison, CpuGroup, CpuPair

router = APIRouter(prefix="/v1", tags=["hosts"], dependencies=[needs(Action.READ)])


class CpuGroupOut(BaseModel):
    """Hosts with equal CPUs."""

    number: int = Field(description="From 1, the largest group first. Pairs name it.")
    hosts: list[str]
    arch: str = Field(examples=["x86_64"])
    virt_type: str = Field(description="`kvm`, or `qemu` where the hosts have only software emulation.")
    vendor: str = Field(examples=["Intel"])
    model: str = Field(description="The named model that is nearest.", examples=["Skylake-Server-IBRS"])
    features: list[str] = Field(description="All of them, those of the model included.")
    beyond: list[str] = Field(description="Features that not all groups have.")

    @classmethod
    def of(cls, group: CpuGroup) -> CpuGroupOut:
        """From the comparison."""
        cpu = group.cpu
        return cls(
            number=group.number,
            hosts=list(group.hosts),
            arch=cpu.arch,
            virt_type=cpu.virt_type,
            vendor=cpu.vendor,
            model=cpu.model,
            features=list(cpu.features),
            beyond=list(group.beyond),
        )


class CpuPairOut(BaseModel):
    """A guest with `host-passthrough`, `host-model` or `maximum` that was started on a host of `source` cannot be
    migrated to a host of `destination`."""

    source: int = Field(description="Number of a group.")
    destination: int = Field(description="Number of a group.")
    why: str = Field(description="What is different besides features, such as the vendor; '' for nothing.")
    missing: list[str] = Field(description="Features of the source that the destination lacks.")

    @classmethod
    def of(cls, pair: CpuPair) -> CpuPairOut:
        """From the comparison."""
        return cls(**pair.model_dump(exclude={"missing"}), missing=list(pair.missing))


class CpusOut(BaseModel):
    """The CPUs of all hosts that are neither dead nor removed."""

    groups: list[CpuGroupOut]
    common_features: list[str] = Field(description="That all known groups have.")
    common_models: list[str] = Field(description="Named models that every known group can give a guest.")
    pairs: list[CpuPairOut]
    pairs_left_out: int = Field(description="Pairs that are not listed, as there are too many.")
    unknown: dict[str, str] = Field(description="Hosts whose CPUs are not known, and why.")

    @classmethod
    def of(cls, found: CpuComparison) -> CpusOut:
        """From the comparison."""
        return cls(
            groups=[CpuGroupOut.of(group) for group in found.groups],
            common_features=list(found.features),
            common_models=list(found.models),
            pairs=[CpuPairOut.of(pair) for pair in found.pairs],
            pairs_left_out=found.pairs_left_out,
            unknown=found.unknown,
        )


@router.get("/cpus", summary="Compare the hosts' CPUs")
async def compare_cpus(controller: Served) -> CpusOut:
    """By groups of hosts with equal CPUs, as libvirt describes them for `host-model`. One host of each group is
    asked, unless this controller knows its CPU already."""
    return CpusOut.of(await controller.cpus.compare())
