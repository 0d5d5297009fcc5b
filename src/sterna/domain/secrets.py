"""libvirt's secrets, which disks are opened with (CHAP, cephx, LUKS) and a TPM's state is encrypted with: which of
them a host lacks, and why one cannot be carried. Pure.

Values are not here: they are bytes that live for a moment in `migration/secrets.py` and in the adapters, and in no
`Value`, which could be journaled, logged or sent.
"""

from __future__ import annotations

from collections.abc import Iterable

from sterna.domain.model import Disk, Refusal, SecretRef, Value, Vm
from sterna.domain.references import Kind

_USAGE_ELEMENTS = {"volume": "volume", "iscsi": "target", "ceph": "name", "tls": "name", "vtpm": "name"}


class Secret(Value):
    """A secret as one host's libvirt has it, without its value."""

    uuid: str
    kind: str
    usage: str = ""
    ephemeral: bool = False
    private: bool = False
    has_value: bool | None = None
    """None: it is private, so that this cannot be read."""
    made_for: str = ""
    """The UUID of the VM that Sterna made it for here; '' where it is not Sterna's."""
    made_by: str = ""
    """The migration that made it; the attachment, where a volume service gave this host a login of its own."""

    @property
    def usage_element(self) -> str:
        """What libvirt's XML calls its usage."""
        return _USAGE_ELEMENTS.get(self.kind, "name")


class Need(Value):
    """A secret that a VM's disks or its TPM refer to, as the source describes it."""

    ref: SecretRef
    known: Secret | None = None
    """As the source's libvirt has it; None where it has none, or did not say."""

    @property
    def key(self) -> str:
        """Names it in a message."""
        return self.known.uuid if self.known is not None else self.ref.words


class Brought(Value):
    """What comes with P3: the secrets that the source lists, with the values that the destination lacks."""

    needs: tuple[Need, ...] = ()
    sealed: dict[str, str] = {}
    """Key -> value, sealed for the destination agent's present life."""


def refs_of(disks: Iterable[Disk]) -> tuple[SecretRef, ...]:
    """Each secret they refer to, once."""
    return tuple(dict.fromkeys(r.model_copy(update={"username": None}) for d in disks for r in d.secrets))


def refs_of_tpm(vm: Vm) -> tuple[SecretRef, ...]:
    """Those that the state of its TPM is encrypted with, now or at its next start."""
    named = (ref.name.lower() for ref in vm.references if ref.kind is Kind.SECRET)
    return tuple(SecretRef(kind="vtpm", uuid=uuid) for uuid in dict.fromkeys(named))


def refs_of_vm(vm: Vm) -> tuple[SecretRef, ...]:
    """Those of its disks, of the disks that only its next start has, and of its TPM."""
    return (*refs_of((*vm.disks, *vm.cold)), *refs_of_tpm(vm))


def refers(ref: SecretRef, secret: Secret) -> bool:
    """Does libvirt find this secret by that reference?"""
    if ref.uuid is not None:
        return ref.uuid == secret.uuid
    return (ref.kind, ref.usage) == (secret.kind, secret.usage)


def names(need: Need) -> tuple[SecretRef, ...]:
    """By what a host may know it, or something in its way."""
    if need.known is None:
        return (need.ref,)
    by_usage = (SecretRef(kind=need.known.kind, usage=need.known.usage),) if need.known.usage else ()
    return (need.ref, SecretRef(kind=need.known.kind, uuid=need.known.uuid), *by_usage)


def lacks(need: Need, here: Iterable[Secret], *, host: str, vm_uuid: str) -> bool | Refusal:
    """Must the secret be brought to `host`, which has `here`? A refusal where that host has another in its place.

    One that a crash left without its value counts as missing, if it was made for this VM.
    """
    here = tuple(here)
    found = next((s for s in here if refers(need.ref, s)), None)
    if found is not None:
        expected = need.known if need.ref.uuid is not None else None
        wanted = (expected.kind, expected.usage) if expected is not None else (need.ref.kind, found.usage)
        if (found.kind, found.usage) != wanted:
            return _conflict(host, f"secret {found.uuid} is there for {found.kind} {found.usage!r}", wanted)
        if found.has_value is False and found.made_for != vm_uuid:
            message = f"{host}: secret {found.uuid} has no value there"
            fix = f"on {host}: virsh secret-set-value {found.uuid} --interactive, or undefine it there"
            return Refusal(code="secret-without-value", message=message, fix=fix)
        return found.has_value is False
    if need.known is not None:
        for other in here:
            if other.uuid == need.known.uuid or _same_usage(other, need.known):
                why = f"{other.kind} {other.usage!r} is secret {other.uuid} there"
                return _conflict(host, why, (need.known.kind, need.known.usage), need.known.uuid)
    return True


def _same_usage(one: Secret, other: Secret) -> bool:
    return bool(one.usage) and (one.kind, one.usage) == (other.kind, other.usage)


def _conflict(host: str, why: str, wanted: tuple[str, str], uuid: str = "") -> Refusal:
    message = f"{host}: {why}, the VM needs {wanted[0]} {wanted[1]!r}" + (f" as {uuid}" if uuid else "")
    return Refusal(code="secret-conflict", message=message, fix=f"undefine one of the two on {host}, if unused")


def uncarriable(need: Need, *, source: str, destination: str) -> Refusal | None:
    """Why the source cannot bring a secret that the destination lacks; None where it can."""
    known = need.known
    if known is None:
        why = f"neither {source} nor {destination} has the secret {need.ref.words}"
    elif known.private:
        why = f"secret {known.uuid} ({known.kind} {known.usage!r}) is private on {source}: its value cannot be read"
    elif not known.has_value:
        why = f"secret {known.uuid} ({known.kind} {known.usage!r}) has no value on {source}"
    else:
        return None
    message = f"{why}; {destination} lacks it"
    return Refusal(code="secret-not-carried", message=message, fix=_define(need, destination))


def _define(need: Need, host: str) -> str:
    """The exact fix."""
    ref, known = need.ref, need.known
    secret = known or Secret(uuid=ref.uuid or "", kind=ref.kind, usage=ref.usage or "...")
    uuid = f"<uuid>{secret.uuid}</uuid>" if secret.uuid else ""
    element = secret.usage_element
    usage = f"<usage type='{secret.kind}'><{element}>{secret.usage}</{element}></usage>"
    return (
        f"define it on {host}: virsh secret-define FILE, with <secret>{uuid}{usage}</secret> in FILE, then "
        f"virsh secret-set-value {secret.uuid or 'UUID'} --interactive"
    )
