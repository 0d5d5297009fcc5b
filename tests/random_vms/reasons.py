"""Refusals that stand although `virsh migrate` would move the VM, and why a person accepts each."""

ACCEPTED: dict[str, str] = {
    "cpus-missing": "libvirt starts it on other CPUs than an operator chose, and says nothing",
    "device-immovable": "a 9p folder is its host's own: the guest could mount another one under its name",
    "disk-backing-file": "libvirt makes one large image of it, which stands on nothing any more",
    "disk-behind-link": "libvirt puts a file in the link's place: what else leads to its target keeps the old disk",
    "disk-data-file": "libvirt makes one file of the two that an operator wanted",
    "disk-format": "of an image that QEMU made obsolete (qed) nobody makes another one",
    "disk-in-use": "libvirt leaves the disk of another VM behind, and both go on with a copy of their own",
    "disk-only-persistent": "the VM could not be started again",
    "disk-outside-instances": "an agent writes and removes files in one folder only",
    "disk-shareable": "the others who write to it would go on with the old disk",
    "file-differs": "the guest would read something else after its next reset",
    "medium-differs": "the guest would read something else at once",
    "nic-unsupported": "user networking is QEMU's own: the guest's connections would end",
    "vm-paused": "whether somebody holds it still for a reason, only that person knows",
}
