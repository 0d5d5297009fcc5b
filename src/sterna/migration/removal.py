"""Files are removed here, after F10 and in R7, and nowhere else: each is judged right before it goes.

What cannot be proven to be this migration's own is kept, and reported. A step never waits for a file, nor for
another VM's file whose file system does not answer.
"""

from __future__ import annotations

import os.path
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial

from sterna.domain.calls import SeesFile
from sterna.domain.claims import inside
from sterna.domain.errors import Permanent, SternaError, StorageSilent
from sterna.domain.files import Created, Removed, same_file
from sterna.domain.model import GuestState, StateFile, Vm
from sterna.domain.references import outputs_in
from sterna.migration.context import Context
from sterna.migration.sharing import silent_on

TRIES, PAUSE_S, PATIENCE_S = 4, 2.0, 60.0
"""A folder may be read-only for a moment; one that stays so does not hold the migration up."""

_MADE_WITH_THE_GUEST = ("nvram", "tpm")
"""Kinds of state that the hypervisor makes where they are missing."""


async def remove(
    ctx: Context, created: Created, identities: Mapping[str, str | None], *, made_here: bool = False
) -> Removed:
    """Remove the files that are still the ones of `identities` and not used elsewhere, then empty directories.

    `made_here`: this migration made those of `identities` again, so the other host need not be asked about them.
    Raises Unreachable or Unknown while a host cannot be asked.
    """
    removed, kept = [], {}
    for path in created.files:
        if await _is_missing(ctx, path):
            continue
        why = await _patiently(ctx, partial(_remove_one, ctx, path, identities.get(path), made_here))
        if why:
            kept[path] = why
        else:
            removed.append(path)
    if created.directories:
        why = await _patiently(ctx, partial(_remove_directories, ctx, created.directories, made_here))
        if why:
            kept[created.directories[0]] = why
    return Removed(removed=tuple(removed), kept=kept)


async def remove_outputs(ctx: Context, vm: Vm, folders: tuple[str, ...]) -> None:
    """F10, R7: the logs that the VM's console left in its own folders here, so that these are empty. A log that may
    be the other host's as well stays, and nothing waits for one."""
    with suppress(SternaError):
        await remove(ctx, Created(files=outputs_in(vm.references, folders)), {})


async def _is_missing(ctx: Context, path: str) -> bool:
    """Is it known to be?"""
    try:
        return await ctx.host.storage.identity(path) is None
    except (StorageSilent, Permanent):
        return False


async def _patiently(ctx: Context, act: Callable[[], Awaitable[str]]) -> str:
    """The result of `act`; or its error, once that has lasted for a while."""
    why, began = "", ctx.clock.monotonic_ms()
    for tried in range(TRIES):
        if ctx.clock.monotonic_ms() - began > PATIENCE_S * 1000:
            break  # it has hung for its whole limit
        if tried:
            await ctx.clock.sleep(PAUSE_S)
        try:
            return await act()
        except (Permanent, StorageSilent) as error:
            why = error.message
    return why


async def _remove_one(ctx: Context, path: str, known: str | None, made_here: bool) -> str:
    """'' once the file is gone; why it may not be removed from here. Raises Permanent where it cannot be."""
    found = await ctx.host.storage.identity(path)
    if found is None:
        return ""
    why = await _against(ctx, path, found, known, made_here)
    return why or await _unlink(ctx, Created(files=(path,)))


async def _unlink(ctx: Context, what: Created) -> str:
    await ctx.host.storage.remove(what)
    return ""


async def _remove_directories(ctx: Context, directories: tuple[str, ...], made_here: bool) -> str:
    """Those that are empty; not one that this migration has made on the other host, where both see it."""
    own = directories if made_here else [d for d in directories if await _is_own_and_empty(ctx, d)]
    await ctx.host.storage.remove(Created(directories=tuple(own)))
    return ""


async def _is_own_and_empty(ctx: Context, directory: str) -> bool:
    return await ctx.host.storage.is_empty(directory) and not await seen_there(ctx, directory)


async def _against(ctx: Context, path: str, found: str, known: str | None, made_here: bool) -> str:
    """Why a file may not be removed from here; '' where it may.

    To a file that this migration itself has made, what does not answer now led nowhere before.
    """
    if known is None:
        return f"it is not known whether this migration {'made' if made_here else 'copied'} it"
    if not same_file(known, found):
        return "it is not the file that this migration knew"
    perhaps = not (made_here and found == known)
    users = await ctx.host.storage.used_by((path,), await ctx.host.hypervisor.claims(), perhaps=perhaps)
    if path in users:
        return f"used by {', '.join(users[path])}"
    locked = await ctx.host.storage.used_by((path,), (), locks=True)
    if path in locked:  # perhaps only for a moment: a backup that looks at it
        raise Permanent(f"used by {', '.join(locked[path])}")
    if made_here and (found == known or ctx.peer_fenced):
        return ""
    return await _from_elsewhere(ctx, path) or await seen_there(ctx, path)


async def _from_elsewhere(ctx: Context, path: str) -> str:
    """Why a third host may use the file; '' where nothing says so. Of those hosts only one is asked."""
    return (await ctx.host.storage.sight(path, ctx.token)).of_others


async def seen_there(ctx: Context, path: str) -> str:
    """How the other host comes to see this file; '' where it does not.

    Raises Unreachable or Unknown where it cannot be asked, Permanent or StorageSilent where nothing can be proven.
    """
    storage, token, other = ctx.host.storage, ctx.token, ctx.peer_name
    asked = SeesFile(path=path, token=token, name=os.path.basename(path), perhaps=True)
    try:
        await storage.leave_token(path, token)
        with silent_on(other):
            answer = await ctx.ask(asked)
    finally:
        await storage.drop_token(path, token)
    if answer.seen:
        return f"{other} sees it as well"
    return f"used on {other} by {', '.join(answer.users)}" if answer.users else ""


async def private_state(ctx: Context, vm: Vm, *, made_here: frozenset[str] | None = None) -> tuple[str, ...]:
    """The kinds of state (`nvram`, `tpm`, `save`) of which this host's copy is proven to be only its own.

    `made_here`: only paths that were not there before. Raises Unreachable or Unknown.
    """
    found = []
    for state in vm.firmware:
        if made_here is not None and state.path not in made_here:
            continue
        if await _state_is_private(ctx, state, perhaps=made_here is None):
            found.append(state.kind)
    shared = {s.kind for s in vm.firmware} - set(found)
    return tuple(kind for kind in dict.fromkeys(found) if kind not in shared)


async def undefine(ctx: Context, vm: Vm, kinds: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Undefine the VM here, with these kinds of its state. A transient VM has left no definition to remove them
    with.

    The kinds that are gone, and path -> why it stays. Raises as `Definitions.undefine`.
    """
    hypervisor = ctx.host.hypervisor
    await hypervisor.undefine(ctx.vm_uuid, ctx.migration.epoch, remove=kinds)
    states = [state for state in vm.firmware if state.kind in kinds]
    files = tuple(state for state in states if state.kind in _MADE_WITH_THE_GUEST)
    stays = await hypervisor.remove_state(ctx.vm_uuid, files)
    left = {state.kind for state in states if not await _is_missing(ctx, state.path)}
    return tuple(kind for kind in kinds if kind not in left), stays


async def remove_state_made(ctx: Context, vm: Vm, absent: tuple[str, ...]) -> Removed:
    """Remove the state that the hypervisor has made here with the guest: it keeps NVRAM of an incoming guest that
    it has forgotten. `absent`: paths that were not there before.

    Raises Unreachable or Unknown while a host cannot be asked.
    """
    removed, kept = [], {}
    for state in vm.firmware:
        made = state.kind in _MADE_WITH_THE_GUEST and state.path in absent
        if not made or await _is_missing(ctx, state.path):
            continue
        why = await _why_state_stays(ctx, state)
        stays = {state.path: why} if why else await ctx.host.hypervisor.remove_state(ctx.vm_uuid, (state,))
        kept.update(stays)
        removed += [state.path] if not stays else []
    return Removed(removed=tuple(removed), kept=kept)


async def _why_state_stays(ctx: Context, state: StateFile) -> str:
    if (await ctx.host.hypervisor.observe(ctx.vm_uuid)).state is not GuestState.ABSENT:
        return f"the VM is defined on {ctx.host.name}"
    if ctx.peer_fenced:
        return f"{ctx.peer_name} was declared dead: it cannot be asked whether it sees it"
    return await _patiently(ctx, partial(_against_state, ctx, state, False))


async def _state_is_private(ctx: Context, state: StateFile, *, perhaps: bool) -> bool:
    return bool(state.path) and not await _patiently(ctx, partial(_against_state, ctx, state, perhaps))


async def _against_state(ctx: Context, state: StateFile, perhaps: bool) -> str:
    """Why it may be in use elsewhere; '' where it is proven not to be. Raises as `seen_there`."""
    storage = ctx.host.storage
    if await storage.identity(state.path) is None:
        return "it is not there"
    claims = await ctx.host.hypervisor.claims(besides=ctx.vm_uuid)
    users = await storage.used_by((state.path,), claims, perhaps=perhaps)
    if state.path in users:
        return f"used by {', '.join(users[state.path])}"
    place = next(iter(inside(state)), state.path)
    return await _from_elsewhere(ctx, state.path) or await seen_there(ctx, place)
