"""The flavor of a server: as Nova wrote it into the definition, else made up from its size."""

from __future__ import annotations

from collections.abc import Iterable

from sterna.domain.nova import Flavor, NovaFacts

MIB = 2**20


def flavor_of(nova: NovaFacts | None, memory_bytes: int | None, vcpus: int | None) -> Flavor:
    """One with an ID and a name."""
    if nova is not None and nova.flavor is not None and (nova.flavor.id or nova.flavor.name):
        found = nova.flavor
        return found.model_copy(update={"id": found.id or found.name, "name": found.name or found.id})
    memory_mib, cpus = (memory_bytes or 0) // MIB, vcpus or 0
    name = f"v{cpus}-r{memory_mib}-d0"
    return Flavor(id=name, name=name, memory_mib=memory_mib, vcpus=cpus)


def distinct(flavors: Iterable[Flavor]) -> list[Flavor]:
    """Each ID once, by name."""
    return sorted({flavor.id: flavor for flavor in flavors}.values(), key=lambda f: (f.name, f.id))
