from __future__ import annotations

import pytest

from sterna.domain.hosts import HostFacts
from sterna.domain.image import unmet

HOST = HostFacts(
    name="host2",
    host_uuid="u",
    address="10.0.0.2",
    libvirt_version=11_003_000,
    qemu_version=10_000_002,
    memory_total_bytes=1,
    memory_free_bytes=1,
    cpus=1,
)


@pytest.mark.parametrize(
    ("properties", "codes"),
    [
        ({}, []),
        ({"hw_disk_bus": "virtio", "img_hv_type": "kvm"}, []),
        ({"img_hv_type": "xen"}, ["image-hypervisor"]),
        ({"hypervisor_type": "hyperv"}, ["image-hypervisor"]),
        ({"img_hv_requested_version": ">=6.0, <10.1"}, []),
        ({"img_hv_requested_version": ">=6.0, <10"}, ["image-hypervisor-version"]),
        ({"hypervisor_version_requires": "==10.0.2"}, []),
        ({"hypervisor_version_requires": "!=10.0.2"}, ["image-hypervisor-version"]),
        ({"img_hv_requested_version": "whatever"}, []),
        ({"trait:CUSTOM_GOLD": "required"}, []),
        ({"trait:CUSTOM_GOLD": "forbidden"}, ["image-trait"]),
        ({"trait:CUSTOM_SILVER": "required"}, ["image-trait"]),
        ({"trait:CUSTOM_SILVER": "forbidden"}, []),
        ({"trait:HW_CPU_X86_AVX2": "required"}, []),
    ],
)
def test_what_an_image_demands(properties: dict[str, str], codes: list[str]) -> None:
    found = unmet(properties, HOST, ("CUSTOM_GOLD",))
    assert [r.code for r in found] == codes
    assert all(r.fix and ("host2" in r.message or "trait" in r.message) for r in found)
