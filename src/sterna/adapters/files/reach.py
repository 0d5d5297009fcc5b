"""What the files that domains name lead to. One on a dead file system holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import takewhile

from sterna.adapters.files.images import Unreadable, parts_of
from sterna.adapters.files.usage import Place, Reach, place_of
from sterna.domain.claims import Claim
from sterna.domain.errors import StorageSilent
from sterna.kit.mounts import Mount, by_mount, look_at, mount_of, touching, ways

LOOK_S = 5.0
"""For all claims of one file system, which takes milliseconds."""
_LANES = (1, 8, 8)
"""How many threads look at what is on one file system. One of them may hang at each try, whatever that is: the next
look passes over what is on the file system where it did."""
_MOST_KNOWN = 4096

_Thing = tuple[str, bool, str | None]


class Claimed:
    """Looks at claims, and remembers what the last look found."""

    def __init__(self) -> None:
        self._last: dict[_Thing, tuple[Place, ...]] = {}

    async def reach(self, claims: tuple[Claim, ...]) -> list[Reach]:
        """What each of them comes to. Takes seconds where something hangs, whatever that is."""
        things = {_thing(claim): claim for claim in claims}
        mounts = by_mount(claim.path for claim in things.values())
        on = {path: mount for mount, paths in mounts.items() for path in paths}
        groups: dict[Mount, list[Claim]] = {}
        for claim in things.values():
            groups.setdefault(on[claim.path], []).append(claim)
        dead: set[str] = set()
        looked = await asyncio.gather(*(_at_all(mount, group, dead) for mount, group in groups.items()))
        found = {_thing(one.claim): self._with_the_last(one) for group in looked for one in group}
        return [found[_thing(claim)]._replace(claim=claim) for claim in claims]

    def _with_the_last(self, reach: Reach) -> Reach:
        """One that answers is remembered; one that does not, completed."""
        thing = _thing(reach.claim)
        if reach.silent:
            return reach._replace(before=self._last.get(thing))
        if len(self._last) >= _MOST_KNOWN:
            self._last.clear()
        if reach.unreadable:
            self._last.pop(thing, None)
        else:
            self._last[thing] = reach.places
        return reach


def _thing(claim: Claim) -> _Thing:
    """Distinguishes one look from another: several domains may name the same file."""
    return claim.path, claim.image, claim.format


async def _at_all(mount: Mount, claims: list[Claim], dead: set[str]) -> list[Reach]:
    """At those of one file system. `dead`: devices at which something hung just now."""
    found: list[Reach] = []
    left = claims
    for lanes in _LANES:
        looked = await asyncio.gather(*(_lane(mount, left[n::lanes], dead) for n in range(min(lanes, len(left)))))
        reached = [one for lane in looked for one in lane]
        seen = {_thing(one.claim) for one in reached}
        found += reached
        left = [claim for claim in left if _thing(claim) not in seen]
        if not left or not reached:
            break
    return found + [_silent(claim, claim.path, ()) for claim in left]


async def _lane(mount: Mount, claims: list[Claim], dead: set[str]) -> list[Reach]:
    """Of those it came to, one after the other; the last of them may be silent."""
    looks = [_Look(claim, frozenset(dead)) for claim in claims]

    def take() -> None:
        for look in looks:
            look.take()

    try:
        await look_at(take, mount.point, limit_s=LOOK_S)
        return [look.outcome() for look in looks]
    except StorageSilent:
        begun = [look.outcome() for look in takewhile(lambda one: one.at, looks)]
        dead |= {mount.device} if not begun else {one.mount.device for one in begun[-1:] if one.silent}
        return begun


class _Look:
    """At one claim, in a thread that may hang. It is read while it goes on."""

    def __init__(self, claim: Claim, dead: frozenset[str]) -> None:
        self._claim, self._dead = claim, dead
        self._places: list[Place] = []
        self._unreadable = ""
        self._over = False
        self.at = ""
        """The path it is looking at; '' before it has begun."""

    def take(self) -> None:
        claim = self._claim
        try:
            self._see(claim.path, "")
            if claim.image:
                for part in parts_of(claim.path, claim.format):
                    if part.is_file:
                        self._see(part.path, f", as a {'data' if part.data else 'backing'} file of {claim.path}")
        except Unreadable as error:
            self._unreadable = str(error)
        except StorageSilent:  # as many hang there as may, or one just now; or it fails
            return
        self._over = True

    def outcome(self) -> Reach:
        """What it has found."""
        places = tuple(self._places)
        if not self._over:
            return _silent(self._claim, self.at, places)
        return Reach(self._claim, places, self._unreadable)

    def _see(self, path: str, role: str) -> None:
        self.at = path
        plain = not role  # it is counted for this file system already
        for way in ways(path):
            if self._dead and mount_of(way).device in self._dead:
                raise StorageSilent(f"{path}: its file system did not answer just now")
            plain &= way == path
        with nullcontext() if plain else touching(path):
            self._places.append(place_of(path, role))


def _silent(claim: Claim, path: str, places: Iterable[Place]) -> Reach:
    return Reach(claim, tuple(places), silent=path, mount=mount_of(path))
