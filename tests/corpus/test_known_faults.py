"""Verdicts over the corpus that were wrong for an operator, and some that are right although libvirt says yes."""

from __future__ import annotations

import pytest
from lxml import etree

from sterna.adapters.libvirt.xml.render import render_live
from sterna.domain.model import Refusal
from tests.corpus.arrival import LIVE, arrives, differences, plan_of
from tests.corpus.catalogue import Definition, elements, tools
from tests.corpus.judge import Verdict, verdicts
from tests.corpus.ports import text


def of(what: str, *, shared: bool = False) -> tuple[Definition, Verdict]:
    """By `tool/name`; of an element by what it is."""
    each = next(each for each in (*tools(), *elements()) if what in (each.id, each.what))
    return each, verdicts()[each.id, shared]


def refusal(verdict: Verdict, code: str) -> Refusal:
    return next(refusal for refusal in verdict.refusals if refusal.code == code)


def test_a_log_in_the_folder_that_the_migration_makes_does_not_stand_in_the_way() -> None:
    assert of("nova/rbd-volume-log", shared=True)[1].moves


@pytest.mark.parametrize("name", ["virt-install/rbd-pool", "nova/rbd-ephemeral", "cloudstack/rbd", "RBD"])
def test_an_rbd_image_that_both_hosts_reach_moves(name: str) -> None:
    assert of(name)[1].moves


def test_no_disk_of_the_corpus_is_called_unreachable() -> None:
    assert [name for (name, _), verdict in verdicts().items() if "disk-unreachable" in verdict.codes] == []


def test_a_lun_of_another_target_that_both_hosts_reach_moves() -> None:
    assert of("virt-install/iscsi-pool")[1].moves


@pytest.mark.parametrize("name", ["ovirt/high-performance", "`invtsc`, with the frequency of its clock"])
def test_invtsc_moves_with_the_frequency_of_its_clock(name: str) -> None:
    assert of(name)[1].moves


def test_the_reason_against_a_private_network_names_it() -> None:
    found = refusal(of("virt-install/nat-default")[1], "nic-unsupported")
    assert "default" in found.message and "virbr" in found.fix


@pytest.mark.parametrize("name", ["small/gnome-boxes", "Linux bridge of a libvirt network"])
def test_a_nic_on_the_bridge_of_a_private_network_does_not_move_without_a_word(name: str) -> None:
    _, verdict = of(name)
    assert not verdict.moves or verdict.vm.unjudged


@pytest.mark.parametrize("name", ["nova/calico", "kubevirt/pvc", "tap that a program has made"])
def test_a_tap_that_another_program_made_is_called_so(name: str) -> None:
    assert set(of(name)[1].codes) == {"nic-unsupported"}


def test_a_function_of_a_libvirt_network_arrives_as_it_left() -> None:
    each, verdict = of("libvirt network of virtual functions")
    assert set(differences(verdict.migratable, arrives(each, verdict)[0])) <= LIVE.keys()


def test_a_rehearsal_leaves_out_a_function_of_a_libvirt_network() -> None:
    _, verdict = of("libvirt network of virtual functions")
    assert (
        etree.fromstring(render_live(text(verdict.migratable), plan_of(verdict))).find("devices/interface") is None
    )


def test_the_hosts_own_smbios_is_not_changed_without_a_word() -> None:
    _, verdict = of("SMBIOS of the host")
    assert not verdict.moves or verdict.vm.unjudged


def test_properties_that_override_a_devices_own_are_warned_of() -> None:
    assert of("properties of a device overridden")[1].vm.unjudged


@pytest.mark.parametrize("name", ["ovirt/payload", "CD of 650 MiB, optional"])
def test_an_optional_medium_does_not_stand_in_the_way_and_is_not_lost_without_a_word(name: str) -> None:
    _, verdict = of(name)
    assert verdict.moves
    assert any("drive is empty" in words for words in verdict.vm.unjudged)


def test_a_vlan_on_a_linux_bridge_that_libvirt_sets_by_itself_moves() -> None:
    assert of("Linux bridge with a VLAN")[1].moves


def test_a_vlan_of_a_virtual_function_that_libvirt_sets_by_itself_moves() -> None:
    assert of("macvtap on a virtual function, VLAN")[1].moves


def test_shared_memory_stays_with_those_that_share_it() -> None:
    """With role='master' QEMU copies the content ("Migration with ivshmem" in its manual). Who shares the memory
    goes on with another copy, and nobody removes the one that is left."""
    found = refusal(of("shared memory, `role=master`")[1], "device-immovable")
    assert "role='master'" in found.message and "attach it again where those are that share it" in found.fix


def test_a_pci_device_with_a_standby_is_to_be_an_interface() -> None:
    """libvirt sets no MAC on a <hostdev> (its release notes, 7.1): no device of the destination would be the
    standby's pair. It sets it on an <interface type='hostdev'>, which moves."""
    found = refusal(of("PCI device with a standby")[1], "device-immovable")
    assert "standby" in found.message and "<interface type='hostdev'>" in found.fix


def test_the_secret_of_a_tpm_is_carried_as_a_disks_is() -> None:
    assert of("TPM, its state encrypted with a secret")[1].moves


@pytest.mark.parametrize("name", ["virtual function", "libvirt network of virtual functions"])
def test_a_function_without_a_standby_is_warned_of(name: str) -> None:
    assert of(name)[1].vm.unjudged
