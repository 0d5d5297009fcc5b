"""Which leftovers are owned by no open migration, and may they be removed? Pure; called by `agent/leftovers.py`.

Nothing is removed because it looks old: only where the state of all hosts proves that it is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from sterna.domain.model import GuestState, Observation, Value
from sterna.domain.trust.dead_letters import DeadLetter
from sterna.domain.whereabouts import GONE

AUDIT_S, REPAIR_S = 60.0, 240.0
"""For all of one host's audit, and with its repairs. What was not examined by then is reported."""
ANSWER_S = 15.0
"""More than that for its answer: a look that is given up is cleaned up after."""


class Safety(StrEnum):
    """Whether a leftover may be removed."""

    SAFE = "safe"
    """Proven to be unused."""
    CANNOT_TELL = "cannot-tell"
    """A host could not be asked, or what is seen does not prove enough: never repaired."""
    NEVER = "never"
    """Only a person may."""
    WAITING = "waiting"
    """No leftover: something that is still under way, and what it waits for."""


class Leftover(Value):
    """One leftover on one host, with the evidence."""

    kind: str
    """`tap`, `incoming-guest`, `definition`, `runs-twice`, `secret`, `files`, `folder`, `admission`, `token`,
    `migration`, `cast`, `bad-message`; `not-looked-at`: something that could not be checked."""
    host: str
    subject: str
    """Device, UUID, path, target or ID."""
    vm: str = ""
    """UUID of its VM, if it belongs to one."""
    why: str
    safety: Safety
    repair: str = ""
    """What a repair would do."""
    done: str = ""
    """What was done, or why not; empty if no repair was requested."""


class Judgement(NamedTuple):
    """May it be removed, and the sentence that says why."""

    safety: Safety
    why: str
    helps: str = ""
    """Where it may not: what a person does. Never to remove what may be the last of its kind."""


class Elsewhere(NamedTuple):
    """What all other hosts say of one guest."""

    seen: Mapping[str, Observation]
    silent: Sequence[str] = ()
    """Hosts that could not be asked."""

    @property
    def running(self) -> dict[str, Observation]:
        """Where its vCPUs run."""
        return {host: o for host, o in self.seen.items() if o.state is GuestState.RUNNING}


def _not_asked(silent: Sequence[str]) -> str:
    return f"{', '.join(silent)} cannot be asked"


def _unknown(silent: Sequence[str], why: str, last: str) -> Judgement:
    """A host that cannot be asked may have the VM, or not: `last` may be all that is left of it."""
    helps = f"leave it alone: it may be {last}. Audit again when {', '.join(silent)} can be asked"
    return Judgement(Safety.CANNOT_TELL, why, helps)


def judge_definition(here: Observation, elsewhere: Elsewhere, *, stays: bool = False) -> Judgement | None:
    """A guest that is off here and carries Sterna's epoch: left behind by a move? None: it is simply off. `stays`:
    by this host's journal it is here; then no other host's word is enough."""
    if here.state is not GuestState.SHUTOFF or here.epoch is None:
        return None
    running = elsewhere.running
    if len(running) == 1 and not elsewhere.silent:
        ((host, there),) = running.items()
        if stays:
            why = f"{host} says that it runs this VM; the last migration of it here has left it on this host"
            helps = f"check whether it runs on {host}, and which of the two is the VM that is meant"
            return Judgement(Safety.NEVER, why, helps)
        if there.epoch is not None and there.epoch >= here.epoch:
            why = f"the same VM runs on {host} with epoch {there.epoch}; this definition has {here.epoch}"
            return Judgement(Safety.SAFE, why)
        why = (
            f"a VM of this UUID runs on {host} with epoch {there.epoch}, older than this definition's {here.epoch}"
        )
        helps = f"compare the two definitions: the one on {host} is not the one that Sterna moved last"
        return Judgement(Safety.NEVER, why, helps)
    if elsewhere.silent:
        where = f"the same VM runs on {', '.join(sorted(running))}" if running else "off here"
        why = f"{where}; {_not_asked(elsewhere.silent)} whether it runs there"
        return _unknown(elsewhere.silent, why, "the VM's only definition")
    if running:
        why = f"the same VM runs on {', '.join(sorted(running))}"
        return Judgement(Safety.CANNOT_TELL, why, "identify the correct copy, and end the other one by hand")
    return None


def judge_incoming(here: Observation, elsewhere: Elsewhere) -> Judgement | None:
    """A guest that waits here for its memory and never ran, with no open migration of Sterna's."""
    if here.state is not GuestState.PAUSED or here.ran or here.epoch is None:
        return None
    sending = [host for host, o in elsewhere.seen.items() if o.job_active]
    if sending:
        return None  # it is migrated, by Sterna or by something else
    if elsewhere.silent:
        why = f"it waits for its memory; {_not_asked(elsewhere.silent)} who sends it"
        return _unknown(elsewhere.silent, why, "on its way here")
    running = elsewhere.running
    if not running:
        helps = "see where its disks are and whether it can be started from them, before you end it by hand"
        return Judgement(Safety.NEVER, "it waits for its memory, never ran here, and runs nowhere else", helps)
    return Judgement(
        Safety.SAFE, f"it waits for memory that no host sends; it runs on {', '.join(sorted(running))}"
    )


def judge_files(elsewhere: Elsewhere) -> Judgement:
    """Disks Sterna made here for a migration that did not bring the guest; nothing defined here uses them."""
    running = elsewhere.running
    if len(running) == 1 and not elsewhere.silent:
        return Judgement(Safety.SAFE, f"made for a migration that ended; the VM runs on {next(iter(running))}")
    if elsewhere.silent:
        why = f"made for a migration that ended; {_not_asked(elsewhere.silent)}"
        return _unknown(elsewhere.silent, why, "the last copy of the VM's disks")
    why = "made for a migration that ended, and the VM runs nowhere: they may be the last copy of its disks"
    return Judgement(Safety.NEVER, why, "start the VM where its disks are whole, and audit again")


def judge_folder(elsewhere: Elsewhere, *, shared: bool) -> Judgement | None:
    """An empty instance directory; nothing of that UUID is here. None: it may be the one of a host that has the VM
    (`shared`)."""
    if shared:
        return None
    why = "empty, made for a VM that is not here any more"
    if elsewhere.silent:
        return _unknown(elsewhere.silent, f"{why}; {_not_asked(elsewhere.silent)}", "the folder of a VM there")
    return Judgement(Safety.SAFE, why)


def runs_twice(seen: Mapping[str, Observation]) -> Judgement | None:
    """Invariant 1."""
    running = sorted(host for host, o in seen.items() if o.state is GuestState.RUNNING)
    if len(running) < 2:
        return None
    why = f"THE SAME VM RUNS ON {' AND '.join(running)}: end the wrong copy now, with `virsh destroy`"
    return Judgement(Safety.NEVER, why)


def bad_message(host: str, letter: DeadLetter) -> Leftover:
    """A message that `host` could not handle, and did not take: nothing depends on it."""
    why = f"sent by {letter.sender or 'nobody that its subject names'} {letter.words}"
    subject = letter.sender or "?"
    return Leftover(kind="bad-message", host=host, subject=subject, why=why, safety=Safety.SAFE, repair="forget it")


def off(observation: Observation) -> bool:
    """It has no QEMU here."""
    return observation.state in GONE
