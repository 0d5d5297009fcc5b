"""A user's request, and what the agents are sent of it."""

from __future__ import annotations

from sterna.domain.errors import Refused
from sterna.domain.forecast import Expectations
from sterna.domain.journal import Migration
from sterna.domain.model import Data, Value, Vm
from sterna.domain.objective import Asked, objective
from sterna.domain.options import MigrationOptions, Requester
from sterna.ports.fleet import VmRecord


class MigrateRequest(Value):
    """What a user asks for."""

    id: str = ""
    """UUID chosen by the user; '' to have one made."""
    vm: str
    """Name or UUID."""
    destination: str | None = None
    """None: Sterna chooses."""
    asked: Asked = Asked()
    """What is wanted of the copy."""
    copies_disks: bool = True
    """False: a VM with disks that only its host sees is refused."""
    ignore_rules: bool = False
    """Placement rules do not count."""
    rehearse: str = ""
    """`prepare` or `copy`: everything up to there is done and undone again."""
    requested_by: str = ""
    """Who asks. It does not distinguish two requests."""
    requester: Requester | None = None
    """The same, by Keystone's ids, where it is a user of a cloud."""

    def asking_as(self, other: MigrateRequest) -> MigrateRequest:
        """The same request, by the user of the other one."""
        return self.model_copy(update={"requested_by": other.requested_by, "requester": other.requester})

    @property
    def options(self) -> MigrationOptions:
        """As the source's agent takes them. Raises Refused where what is asked makes no sense."""
        wanted, wrong = objective(self.asked)
        if wanted is None:
            raise Refused(wrong)
        return MigrationOptions(objective=wanted, rehearse=self.rehearse, requester=self.requester)


def proposal(
    request: MigrateRequest, vm: VmRecord, destination: str, expectations: Expectations, created_at: str
) -> Migration:
    """The migration that the source's agent is asked to accept. Raises Refused as `MigrateRequest.options`."""
    return Migration(
        id=request.id,
        epoch=0,  # the source's journal issues it
        vm_uuid=vm.uuid,
        vm_name=vm.name,
        source=vm.host,
        destination=destination,
        options=request.options.expecting(expectations),
        created_at=created_at,
        requested_by=request.requested_by,
    )


def start_params(proposed: Migration) -> Data:
    """Parameters of `start_migration`, as every agent gets them."""
    return {
        "id": proposed.id,
        "vm": proposed.vm_uuid,
        "destination": proposed.destination,
        "options": proposed.options.to_data(),
        "requested_by": proposed.requested_by,
        **({"permit": proposed.permit} if proposed.permit else {}),
    }


def local_disks(answer: Data) -> list[str]:
    """Of the VM that an answer of `check_migration` is about: disks that only its host sees."""
    return [disk.target for disk in Vm.model_validate(answer["vm"]).disks if disk.local] if "vm" in answer else []


def check_params(vm: VmRecord, destination: str, options: MigrationOptions) -> Data:
    """Parameters of `check_migration`; `options` are the request's."""
    return {"vm": vm.uuid, "destination": destination, "options": options.to_data()}
