"""Refusals about the request itself."""

from __future__ import annotations

from sterna.domain.refusals.entry import Against, By, Entry, Group

REQUEST = Group(
    "The request",
    (
        Entry(
            "policy-unknown",
            cause="There is no policy with this name.",
            remedy="choose gentle, default or urgent",
            by=By.CONTROLLER,
            when="plan",
            against=Against.VM,
        ),
        Entry(
            "downtime-out-of-range",
            cause="The downtime limit is too short or too long for libvirt.",
            remedy="choose another limit; 300ms suits most guests",
            by=By.CONTROLLER,
            when="plan",
            against=Against.VM,
        ),
        Entry(
            "deadline-out-of-range",
            cause="The deadline is not a positive time.",
            remedy="give a positive time, for example 10m",
            by=By.CONTROLLER,
            when="plan",
            against=Against.VM,
        ),
        Entry(
            "bandwidth-out-of-range",
            cause="The bandwidth limit is less than 1 MiB/s, the minimum in libvirt.",
            remedy="give at least 1MiB/s",
            by=By.CONTROLLER,
            when="plan",
            against=Against.VM,
        ),
        Entry(
            "deadline-missed",
            cause="The operation would probably not end within the given time.",
            remedy="allow more time, allow more (--may postcopy), or start it anyway (--even-if-late)",
            by=By.CONTROLLER,
            when="drain",
            against=Against.VM,
        ),
        Entry(
            "webhook-not-allowed",
            cause="A rolling operation names a webhook that the controller may not call, or that is not a valid "
            "URL.",
            remedy="add the URL, or a folder above it, to `webhooks` in [fleet] of all controllers",
            by=By.CONTROLLER,
            when="rolling",
            against=Against.VM,
        ),
        Entry(
            "rebalance-off",
            cause="A rebalance was asked for, and is off, as it is by default.",
            remedy="see what it would do (`sterna rebalance --plan`), and set `rebalance = true` in [fleet] of all "
            "controllers",
            by=By.CONTROLLER,
            when="rebalance",
            against=Against.VM,
        ),
        Entry(
            "nothing-to-bring-back",
            cause="No drain or rolling operation that is recorded has moved a VM away from these hosts that is not "
            "back: old operations are removed from the records, and a rebalance's moves are to stay.",
            remedy="name the hosts where the VMs were before; migrate others one by one (`sterna migrate VM --to "
            "HOST`)",
            by=By.CONTROLLER,
            when="bring-back",
            against=Against.VM,
        ),
    ),
)
