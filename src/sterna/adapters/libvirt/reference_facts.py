"""What the source has of the things that its VM's definition names: the destination compares it with its own."""

from __future__ import annotations

import os

from sterna.adapters.host import looks, open_files
from sterna.adapters.host import resources as kernel
from sterna.adapters.libvirt.session.host import HostSettings
from sterna.domain.references import Form, Kind, Reference, Thing, in_words, numbers

_SEEN = {Kind.CPUS, Kind.NODES, Kind.ADDRESS, Kind.FILE, Kind.FIRMWARE, Kind.ARGUMENT}
_SEEN_COLD = {Kind.PRESENT, Kind.DEVICE, Kind.SOCKET, Kind.OUTPUT}
"""Of these only what the next cold start needs: what is missing already, the destination need not have."""


async def seen(references: tuple[Reference, ...], own: HostSettings, pid: int | None) -> tuple[Reference, ...]:
    """With what is there. A file system that does not answer is the business of the check alone."""
    found = {ref: ref for ref in references}
    wanted = [ref for ref in references if ref.kind in _SEEN or (ref.cold and ref.kind in _SEEN_COLD)]
    answers = await looks.at_those_that_answer(wanted, lambda refs: [_as_seen(ref, own, pid) for ref in refs])
    for refs, answer in answers:
        silent = [ref.model_copy(update={"silent": True}) for ref in refs]
        found |= zip(refs, silent if answer is None else answer, strict=True)
    return tuple(found[ref] for ref in references)


def _as_seen(ref: Reference, own: HostSettings, pid: int | None) -> Reference:
    if ref.kind in (Kind.CPUS, Kind.NODES):  # of those that are not here either nobody makes use
        has = numbers(ref.name) & (kernel.cpus() if ref.kind is Kind.CPUS else kernel.nodes())
        return ref.model_copy(update={"name": in_words(has)}) if has else ref
    if ref.kind is Kind.ADDRESS:
        return ref.model_copy(update={"own": ref.name == own.address, "network": kernel.network_of(ref.name)})
    if ref.kind is Kind.ARGUMENT and pid is not None and not ref.cold:
        return _of_argument(ref, pid)
    if ref.kind in (Kind.FILE, Kind.FIRMWARE, Kind.ARGUMENT):
        return ref.model_copy(update={"thing": kernel.thing(ref.name, digest=ref.kind is not Kind.FIRMWARE)})
    if ref.cold and ref.kind in _SEEN_COLD:
        return ref.model_copy(update={"thing": kernel.thing(ref.name)})
    return ref


def _of_argument(ref: Reference, pid: int) -> Reference:
    """What its QEMU only writes, it makes as well. What it reads and writes is not read here: it changes."""
    mode = open_files.access(ref.name, pid)
    if mode == os.O_WRONLY:
        return ref.model_copy(update={"thing": Thing()})
    found = kernel.thing(ref.name, digest=mode != os.O_RDWR)
    written = mode == os.O_RDWR and found.form in (Form.FILE, Form.NOTHING)
    return ref.model_copy(update={"thing": found, "written": written})
