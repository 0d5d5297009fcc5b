"""Refusals about CPUs, memory and the machine that QEMU gives the guest."""

from __future__ import annotations

from sterna.domain.refusals.entry import By, Entry, Group

CPU = Group(
    "CPU, memory and machine",
    (
        Entry(
            "cpu-incompatible",
            cause="The destination cannot provide the guest's CPU model.",
            remedy="choose a host of the same CPU generation",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "cpu-not-the-same",
            cause="The guest sees its host's CPU directly, and the destination's CPU lacks some of its features.",
            remedy="choose a host with the same CPU, or accept the risk with `--accept cpu`",
            by=By.AGENTS,
            when="plan",
        ),
        Entry(
            "cpus-missing",
            cause="The VM is pinned to host CPUs that are not online on the destination.",
            remedy="choose a host that has them, or pin the VM to others (`virsh edit`)",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "nodes-missing",
            cause="The VM's memory is bound to NUMA nodes that the destination does not have.",
            remedy="choose a host that has them, or bind the VM to others (`virsh edit`)",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "memory-short",
            cause="The destination has less free memory than the guest needs.",
            remedy="migrate or stop another VM there, or choose another host",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "hugepages-short",
            cause="The destination has too few free huge pages of the guest's size, or no hugetlbfs for them.",
            remedy="reserve more there (`sysctl vm.nr_hugepages`), or mount hugetlbfs for that size",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "resctrl-missing",
            cause="The VM allocates CPU cache or memory bandwidth, and the destination has no resctrl.",
            remedy="mount it there: `mount -t resctrl resctrl /sys/fs/resctrl`",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "arch-unsupported",
            cause="QEMU on the destination does not run guests of this architecture.",
            remedy="install QEMU for that architecture there",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "emulator-missing",
            cause="The destination's libvirt does not know the QEMU binary that the VM names.",
            remedy="install the same QEMU package there, or use a binary that `virsh capabilities` lists there",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "virt-type-missing",
            cause="The destination does not offer the VM's type of virtualisation, such as KVM.",
            remedy="choose another host; for KVM, enable virtualisation in the firmware and load the kvm module",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "machine-type-missing",
            cause="QEMU on the destination does not know the VM's machine type.",
            remedy="install a QEMU that knows it there, or set an older machine type while the VM is off",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "qemu-too-old",
            cause="QEMU on the destination loses memory pages of guests without KVM.",
            remedy="install QEMU 8 or newer there, or use KVM",
            by=By.DESTINATION,
            when="plan, P6",
        ),
    ),
)
