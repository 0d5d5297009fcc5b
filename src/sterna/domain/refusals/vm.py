"""Refusals about the VM itself: what it is, what it is doing, and what its image demands."""

from __future__ import annotations

from sterna.domain.refusals.entry import By, Entry, Group

VM = Group(
    "The VM",
    (
        Entry(
            "no-such-vm",
            cause="No host that could be asked has a VM of this name or UUID.",
            remedy="list the VMs with `sterna vms`",
            by=By.CONTROLLER,
            when="plan",
        ),
        Entry(
            "vm-name-ambiguous",
            cause="Several VMs have this name.",
            remedy="give the UUID of the one you mean",
            by=By.CONTROLLER,
            when="plan",
        ),
        Entry(
            "vm-runs-twice",
            cause="Several hosts run a VM with this UUID.",
            remedy="end the wrong copy by hand (`virsh destroy`), at once",
            by=By.CONTROLLER,
            when="plan",
        ),
        Entry(
            "migration-under-way",
            cause="The VM is in a migration that has not ended.",
            remedy="wait for it, or abort it with `sterna abort`",
            by=By.ALL,
            when="plan",
        ),
        Entry(
            "vm-not-running",
            cause="The guest is off, or shutting down.",
            remedy="start the VM",
            by=By.SOURCE,
            when="plan, P2",
        ),
        Entry(
            "vm-paused",
            cause="The guest is paused: by somebody, an I/O error, its watchdog, a crash or its own sleep.",
            remedy="remove the cause, then resume the VM",
            by=By.SOURCE,
            when="plan, P2",
        ),
        Entry(
            "vm-job-active",
            cause="A job of libvirt runs on the whole guest: a backup, dump, save, snapshot or another migration.",
            remedy="wait until it ends, or end it with `virsh domjobabort`; do not resume a guest that it paused",
            by=By.SOURCE,
            when="plan, P2, before the copy",
        ),
        Entry(
            "disk-job-active",
            cause="A block job runs on one of the VM's disks: a backup, copy, commit or pull.",
            remedy="wait until it ends, or end it with `virsh blockjob`",
            by=By.SOURCE,
            when="plan, P2, before the copy",
        ),
        Entry(
            "vm-snapshots",
            cause="The VM has snapshots, and libvirt migrates no VM that has any.",
            remedy="delete them with `virsh snapshot-delete`",
            by=By.SOURCE,
            when="plan, P2, before the copy",
        ),
        Entry(
            "qemu-blocks-migration",
            cause="QEMU says that this guest cannot be migrated, because of a device or a disk's format.",
            remedy="detach what QEMU names, or change it in the definition while the VM is off",
            by=By.SOURCE,
            when="plan, P2, before the copy",
        ),
        Entry(
            "device-immovable",
            cause="The VM has a device that no other host can be given: a PCI or USB device, a shared folder.",
            remedy="detach the device",
            by=By.SOURCE,
            when="plan",
        ),
        Entry(
            "definition-refused",
            cause="The destination's libvirt cannot make a QEMU command line of the VM's definition.",
            remedy="install on the destination what its libvirt or QEMU lacks",
            by=By.DESTINATION,
            when="plan, rehearsal",
        ),
        Entry(
            "uuid-taken",
            cause="The destination already has a VM with this UUID.",
            remedy="undefine it there with `virsh undefine`, if it is not needed",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "name-taken",
            cause="The destination has another VM of the same name.",
            remedy="rename one of the two",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "epoch-not-believed",
            cause="An agent reports an epoch of the VM that is far ahead of what the other host has seen.",
            remedy="find out what wrote it into the VM's metadata or that host's journal",
            by=By.AGENTS,
            when="plan",
        ),
        Entry(
            "image-hypervisor",
            cause="The VM's image demands another hypervisor than QEMU.",
            remedy="correct the image's property `img_hv_type`",
            by=By.DESTINATION,
            when="plan, P7",
        ),
        Entry(
            "image-hypervisor-version",
            cause="The VM's image demands another version of QEMU than the destination has.",
            remedy="choose another host",
            by=By.DESTINATION,
            when="plan, P7",
        ),
        Entry(
            "image-trait",
            cause="The VM's image requires a trait that the destination lacks, or forbids one that it has.",
            remedy="choose another host, or correct `traits` in that host's agent settings",
            by=By.DESTINATION,
            when="plan, P7",
        ),
        Entry(
            "image-unknown",
            cause="What the VM's image demands could not be found out.",
            remedy="check that Glance answers the destination's agent and still has the image",
            by=By.DESTINATION,
            when="plan",
        ),
    ),
)
