"""The secrets of a simulated libvirt (ports.secrets.Keyring)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sterna.domain.errors import Conflict, NotFound, Permanent
from sterna.domain.model import SecretRef
from sterna.domain.secrets import Secret, refers
from sterna.sim.libvirt.part import SimPart
from sterna.sim.world.host import SimHost
from sterna.sim.world.things import SimSecret


class SimKeyring(SimPart):
    """What disks are opened with."""

    async def secrets_like(self, refs: Sequence[SecretRef]) -> list[Secret]:
        """Those that one of these references names."""
        here = await self._called()
        found = (s.described for s in here.secrets.values())
        return [s for s in found if any(refers(ref, s) for ref in refs)]

    async def secret_value(self, uuid: str) -> bytes:
        """Its value. Raises NotFound, Permanent."""
        found = (await self._called()).secrets.get(uuid)
        if found is None:
            raise NotFound(f"there is no secret {uuid} here")
        if found.about.private:
            raise Permanent("libvirt refused: secret is private")
        if found.value is None:
            raise Permanent(f"libvirt refused: secret '{uuid}' does not have a value")
        return found.value

    async def make_secret(self, secret: Secret, value: bytes) -> None:
        """Define it with its value. Raises Conflict, Permanent."""
        here = await self._called()
        present = here.secrets.get(secret.uuid)
        if present is not None:
            if present.described.has_value is not False:
                return
            if present.about.made_for != secret.made_for:
                raise Conflict(f"secret {secret.uuid} is there without a value, and it is not Sterna's")
        else:
            alike = SecretRef(kind=secret.kind, usage=secret.usage)
            if secret.usage and any(refers(alike, s.about) for s in here.secrets.values()):
                raise Permanent("libvirt refused: a secret already defined for use with " + secret.usage)
        about = secret.model_copy(update={"private": False, "has_value": None})
        here.secrets[secret.uuid] = SimSecret(about)
        self._world.tell(here.name, "secret", secret.uuid, "defined")
        here.secrets[secret.uuid].value = value
        self._world.tell(here.name, "secret", secret.uuid, "has a value")

    async def remove_secret(self, uuid: str, vm_uuid: str, migration_id: str | None = None) -> bool:
        """Undefine what is Sterna's, this VM's and used no more."""
        here = await self._called()
        present = here.secrets.get(uuid)
        if present is None or present.about.made_for != vm_uuid:
            return False
        if migration_id not in (None, present.about.made_by) or any(refers(r, present.about) for r in _used(here)):
            return False
        del here.secrets[uuid]
        self._world.tell(here.name, "secret", uuid, "undefined")
        return True

    async def unused_secrets(self) -> list[Secret]:
        """Those of Sterna's that no domain here refers to."""
        here = await self._called()
        own = [s.described for s in here.secrets.values() if s.about.made_for]
        return [s for s in own if not any(refers(ref, s) for ref in _used(here))]


def _used(here: SimHost) -> Iterator[SecretRef]:
    for domain in here.domains.values():
        for definition in (domain.live, domain.inactive):
            for disk in definition.disks if definition is not None else ():
                yield from disk.secrets
