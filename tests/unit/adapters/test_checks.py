"""Refusals of a host's libvirt, from capabilities as libvirt writes them; and what its statistics mean."""

import libvirt
import pytest

from sterna.adapters.libvirt.lifecycle import to_completed
from sterna.adapters.libvirt.mover import to_sample
from sterna.adapters.libvirt.session.events import lifecycle
from sterna.adapters.libvirt.xml import checks
from sterna.domain.model import GuestState, Vm

CAPABILITIES = """<capabilities><host><uuid>h</uuid></host>
  <guest><os_type>hvm</os_type><arch name='x86_64'><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <machine maxCpus='255'>pc-i440fx-10.0</machine><machine canonical='pc-q35-10.0'>q35</machine>
    <machine>pc-q35-10.0</machine><domain type='qemu'/></arch></guest></capabilities>"""
DOMAIN_CAPABILITIES = """<domainCapabilities><cpu><mode name='custom' supported='yes'>
    <model usable='yes'>qemu64</model><model usable='no'>Skylake-Server</model></mode></cpu></domainCapabilities>"""


def vm(**more: object) -> Vm:
    facts = {"uuid": "u", "name": "n", "state": GuestState.RUNNING, "memory_bytes": 1 << 30, "vcpus": 1}
    facts |= {"virt_type": "qemu", "machine": "pc-q35-10.0", "emulator": "/usr/bin/qemu-system-x86_64"}
    return Vm.model_validate(facts | more)


def codes(vm: Vm) -> list[str]:
    return [r.code for r in checks.against_capabilities(vm, CAPABILITIES)]


def test_what_the_host_has_is_fine() -> None:
    assert codes(vm()) == []


def test_every_reason_at_once() -> None:
    bad = vm(machine="pc-q35-99.0", virt_type="kvm")
    assert codes(bad) == ["virt-type-missing", "machine-type-missing"]
    assert codes(vm(arch="aarch64")) == ["arch-unsupported"]


def test_the_machine_type_of_the_next_start_is_looked_for_as_well() -> None:
    later = vm(next_start={"machine": "pc-q35-99.0"})
    (refusal,) = checks.against_next_start(later, CAPABILITIES)
    assert refusal.code == "machine-type-missing"
    assert "pc-q35-99.0" in refusal.message and "only the persistent definition" in refusal.message
    assert checks.against_next_start(vm(next_start={"machine": "pc-q35-10.0"}), CAPABILITIES) == []


@pytest.mark.parametrize(
    ("virt_type", "version", "refused"),
    [("qemu", 7_002_019, True), ("qemu", 8_000_000, False), ("kvm", 7_002_019, False), ("qemu", 10_000_002, False)],
)
def test_software_emulation_needs_qemu_8(virt_type: str, version: int, refused: bool) -> None:
    found = checks.against_version(vm(virt_type=virt_type), version)
    assert [r.code for r in found] == (["qemu-too-old"] if refused else [])
    assert all("7.2" in r.message for r in found)


@pytest.mark.parametrize(
    ("cpu", "refused"),
    [
        ("", False),
        ("<cpu mode='host-passthrough'/>", False),
        ("<cpu mode='custom'><model>qemu64</model></cpu>", False),
        ("<cpu mode='custom'><model>Skylake-Server</model></cpu>", False),
        ("<cpu mode='custom'><model>NoSuch</model></cpu>", True),
    ],
)
def test_cpu_models_of_software_emulation(cpu: str, refused: bool) -> None:
    found = checks.against_cpu_model(vm(cpu_xml=cpu), DOMAIN_CAPABILITIES)
    assert [r.code for r in found] == (["cpu-incompatible"] if refused else [])


@pytest.mark.parametrize(("model", "all_of_it"), [("qemu64", True), ("Skylake-Server", False), ("NoSuch", False)])
def test_a_model_that_is_emulated_in_part_is_left_to_libvirt(model: str, all_of_it: bool) -> None:
    """A `host-model` of software emulation is such a model, with the missing features disabled."""
    named = vm(cpu_xml=f"<cpu mode='custom'><model>{model}</model></cpu>")
    assert checks.gives_all_of(named, DOMAIN_CAPABILITIES) is all_of_it


def test_the_end_of_a_migrated_qemu_is_no_shutdown_of_the_guest() -> None:
    assert lifecycle(libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST) is None
    by_guest = lifecycle(libvirt.VIR_DOMAIN_EVENT_SHUTDOWN, libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_GUEST)
    assert by_guest is not None
    assert (by_guest.kind, by_guest.detail) == ("shutdown", "guest")


def test_lifecycle_words() -> None:
    started = lifecycle(libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED)
    stopped = lifecycle(libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED)
    assert started is not None
    assert stopped is not None
    assert (started.kind, stopped.kind, stopped.detail) == ("started-incoming", "stopped", "failed")
    assert lifecycle(libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED, 0) is None


def test_a_sample_in_bytes_and_unknown_where_nobody_counted() -> None:
    stats = {"memory_dirty_rate": 0, "memory_page_size": 4096, "memory_iteration": 1, "memory_total": 10}
    assert to_sample(stats).dirty_rate is None
    assert to_sample(stats | {"memory_iteration": 2, "memory_dirty_rate": 10}).dirty_rate == 40960
    assert to_sample(stats | {"memory_iteration": 2}).dirty_rate is None
    assert to_sample({}).memory_total is None
    not_begun = to_sample({"memory_total": 0, "memory_remaining": 0, "memory_iteration": 0})
    assert (not_begun.memory_total, not_begun.memory_remaining, not_begun.iteration) == (None, None, None)


def test_disks_are_counted_on_the_source_only() -> None:
    stats = {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, "disk_total": 0, "downtime": 5}
    arrived = to_completed(stats)
    assert arrived is not None
    assert (arrived.downtime_ms, arrived.disk_total) == (5, None)
    left = to_completed(stats | {"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT})
    assert left is not None
    assert left.disk_total == 0
    assert to_completed({"operation": libvirt.VIR_DOMAIN_JOB_OPERATION_SAVE}) is None
