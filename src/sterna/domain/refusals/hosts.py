"""Refusals about the hosts of a migration, as the controller and the agents see them."""

from __future__ import annotations

from sterna.domain.refusals.entry import Against, By, Entry, Group

HOSTS = Group(
    "The hosts of the migration",
    (
        Entry(
            "no-such-host",
            cause="No agent with this host name has ever sent a heartbeat to the controller.",
            remedy="list the hosts with `sterna hosts`, and start the Sterna agent there",
            by=By.CONTROLLER,
            when="plan",
        ),
        Entry(
            "no-destination",
            cause="There is no other host that the VM could migrate to.",
            remedy="start a Sterna agent on another host",
            by=By.CONTROLLER,
            when="plan",
            against=Against.VM,
        ),
        Entry(
            "same-host",
            cause="The VM is already on the destination.",
            remedy="name another host, or let Sterna choose one",
            by=By.ALL,
            when="plan",
        ),
        Entry(
            "destination-down",
            cause="The destination's agent does not answer.",
            remedy="start the Sterna agent there, or repair its network",
            by=By.ALL,
            when="plan",
            passing=True,
        ),
        Entry(
            "destination-degraded",
            cause="The destination's agent runs, but reports that it cannot take part.",
            remedy="fix the cause, which `sterna hosts` shows, or choose another host",
            by=By.CONTROLLER,
            when="plan",
            passing=True,
        ),
        Entry(
            "destination-in-maintenance",
            cause="An operator has put the destination into maintenance.",
            remedy="end it with `sterna host maintenance HOST --off`, or choose another host",
            by=By.CONTROLLER,
            when="plan",
        ),
        Entry(
            "destination-not-clean",
            cause="The destination is still cleaning up after an earlier migration of this VM.",
            remedy="wait until it has finished",
            by=By.DESTINATION,
            when="plan",
        ),
        Entry(
            "source-down",
            cause="The agent of the host that the VM was last seen on does not answer.",
            remedy="start the Sterna agent there, or repair its network",
            by=By.CONTROLLER,
            when="plan",
            against=Against.VM,
            passing=True,
        ),
        Entry(
            "source-degraded",
            cause="The source's agent runs, but reports that it cannot take part.",
            remedy="fix the cause, which `sterna hosts` shows",
            by=By.CONTROLLER,
            when="plan",
            against=Against.VM,
            passing=True,
        ),
        Entry(
            "check-failed",
            cause="A check could not be completed, so it is unknown whether the VM can be migrated.",
            remedy="try again, or name another host; if it happens again, see the logs of both agents",
            by=By.ALL,
            when="plan",
            passing=True,
        ),
        Entry(
            "host-gone",
            cause="A host in the request was declared dead, or removed from the fleet.",
            remedy="leave it out of the request",
            by=By.CONTROLLER,
            when="drain",
            against=Against.VM,
        ),
        Entry(
            "no-open-host",
            cause="There is no open host for the VMs of the hosts in the request.",
            remedy="leave some hosts out, or end the maintenance of others: `sterna host maintenance HOST --off`",
            by=By.CONTROLLER,
            when="drain",
            against=Against.VM,
        ),
        Entry(
            "placement-rule",
            cause="A placement rule forbids this destination for the VM.",
            remedy="choose another host (`sterna place VM`), change the rule (`sterna rules show NAME`), or "
            "migrate it anyway with --ignore-rules",
            by=By.CONTROLLER,
            when="plan",
        ),
        Entry(
            "hosts-down-together",
            cause="A rule says that hosts must not be down together, and the operation would close a second one.",
            remedy="drain one after the other, change the rule (`sterna rules show NAME`), or start it anyway "
            "(--ignore-host-rules)",
            by=By.CONTROLLER,
            when="drain",
        ),
        Entry(
            "fencing-not-confirmed",
            cause="A host can only be declared dead with confirmation that it is fenced.",
            remedy="power it off, make sure that it stays off, then confirm with `--fenced`",
            by=By.CONTROLLER,
            when="`sterna host declare-dead`",
        ),
        Entry(
            "host-answers",
            cause="A host whose agent answers cannot be declared dead.",
            remedy="let it finish its migrations by itself, or power it off first",
            by=By.ALL,
            when="`sterna host declare-dead`",
        ),
    ),
)
