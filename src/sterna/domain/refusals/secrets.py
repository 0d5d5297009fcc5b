"""Refusals about libvirt's secrets."""

from __future__ import annotations

from sterna.domain.refusals.entry import By, Entry, Group

SECRETS = Group(
    "Secrets",
    (
        Entry(
            "secret-not-carried",
            cause="The destination lacks a secret of the VM's disks or TPM, and the source cannot read its value.",
            remedy="define it there: `virsh secret-define`, `virsh secret-set-value`",
            by=By.AGENTS,
            when="plan, P3, P9",
        ),
        Entry(
            "secret-conflict",
            cause="The destination has another secret with the same UUID or for the same use.",
            remedy="undefine the one there, if it is not used",
            by=By.DESTINATION,
            when="plan, P3, P9",
        ),
        Entry(
            "secret-without-value",
            cause="The destination has the secret, but without a value.",
            remedy="set it there with `virsh secret-set-value`, or undefine the secret",
            by=By.DESTINATION,
            when="plan, P3, P9",
        ),
    ),
)
