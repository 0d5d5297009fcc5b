"""The generator itself: rerunnable by seed, and its VMs are such as libvirt's schema allows."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from tests.random_vms.generator import random_vm
from tests.random_vms.kinds import kinds

SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
VMS = 300


def test_the_same_seed_and_number_give_the_same_vm() -> None:
    assert [random_vm(3, n) for n in range(20)] == [random_vm(3, n) for n in range(20)]


def test_other_seeds_and_numbers_give_others() -> None:
    vms = [random_vm(seed, n) for seed in (3, 4) for n in range(VMS)]
    assert len({vm.uuid for vm in vms}) == len({vm.xml for vm in vms}) == len(vms)


def test_every_kind_is_drawn_alone() -> None:
    found = kinds()
    assert len(found) >= 120
    assert len({vm.uuid for _, vm in found}) == len(found)
    assert {name for name, _ in found} == {name for name, _ in kinds()}


@pytest.mark.skipif(not SCHEMA.exists(), reason="libvirt's schemas are not installed")
def test_the_schema_allows_them() -> None:
    schema = etree.RelaxNG(etree.parse(SCHEMA))
    vms = [vm for _, vm in kinds()] + [random_vm(3, n) for n in range(VMS)]
    for vm in vms:
        schema.assertValid(etree.fromstring(vm.xml.replace("'KIND'", "'qemu'")))
