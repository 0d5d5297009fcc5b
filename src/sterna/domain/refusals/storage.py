"""Refusals about volumes: shared folders, iSCSI targets, Cinder."""

from __future__ import annotations

from sterna.domain.refusals.entry import By, Entry, Group

STORAGE = Group(
    "Volumes",
    (
        Entry(
            "shared-file-unusable",
            cause="The destination cannot open the shared file, or the image has a different size there.",
            remedy="make the file available on the destination, at the same path and with the same access",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "volume-missing",
            cause=(
                "There is no such target, LUN or Cinder volume, or the target does not let the destination open it."
            ),
            remedy="check that the volume still exists, and that its target admits the destination's initiator",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "volume-service-down",
            cause="The volume service does not answer the destination, or answers with an error.",
            remedy="check that the volume service runs and that the destination can reach it",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "volume-shared",
            cause="Another VM on one of the hosts uses the iSCSI volume, or may use it: the migration would "
            "disconnect it.",
            remedy="detach it from the other VM; if it is shareable or read-only, from this VM for the migration",
            by=By.AGENTS,
            when="plan, P4",
        ),
        Entry(
            "target-shared",
            cause="The iSCSI target has several LUNs, and a host has access to all of them or none.",
            remedy="give each volume a target of its own",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "initiator-unknown",
            cause="The destination's agent has no iSCSI initiator name.",
            remedy="set `initiator` in `[volumes]` of that host's agent settings",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "initiator-shared",
            cause="Both hosts use the same iSCSI initiator name: revoking one's access revokes the other's.",
            remedy="give each host its own: `initiator` in `[volumes]` of its agent's settings",
            by=By.SOURCE,
            when="plan",
        ),
        Entry(
            "volume-multiattach",
            cause="Cinder allows several VMs to attach the volume (multiattach).",
            remedy="detach it for the migration",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "volume-encrypted",
            cause="The Cinder volume is encrypted, and the VM's disk names no LUKS secret.",
            remedy="detach it for the migration",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "volume-read-only",
            cause="The Cinder volume is attached read-only.",
            remedy="detach it for the migration",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "volume-state",
            cause="The Cinder volume is not `in-use`, or Cinder is moving it.",
            remedy="wait until Cinder has finished, or reset the volume's state",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "volume-attachments",
            cause="Cinder does not have the volume attached exactly once, on the host that the VM runs on.",
            remedy="correct it: see `openstack volume attachment list`",
            by=By.DESTINATION,
            when="plan, P4",
        ),
        Entry(
            "volume-transport",
            cause="Cinder connects the volume neither over iSCSI nor over RBD.",
            remedy="detach it for the migration",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "volume-host-attached",
            cause="The host attached the volume for the guest (os-brick), so QEMU has it as a block device.",
            remedy="start the VM with a network disk instead",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "volume-chap",
            cause="The volume's target requires a login that the VM's disk does not have.",
            remedy="set `use_chap_auth = false` in Cinder's back end, or detach the volume",
            by=By.DESTINATION,
            when="plan",
        ),
    ),
)
