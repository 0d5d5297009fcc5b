"""What a user asks for, and what the agents are sent of it."""

from __future__ import annotations

from sterna.domain.errors import Refused
from sterna.domain.forecast import EXPECTATIONS, Expectations
from sterna.domain.journal import REQUESTER, Migration, Requester
from sterna.domain.model import Data, Value
from sterna.domain.objective import OBJECTIVE, Asked, objective
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
    rehearse: str = ""
    """`prepare` or `copy`: everything up to there is done and undone again."""
    requested_by: str = ""
    """Who asks. The same request of somebody else is the same request."""
    requester: Requester | None = None
    """The same, by Keystone's ids, where it is a user of a cloud."""

    def asking_as(self, other: MigrateRequest) -> MigrateRequest:
        """The same request, of who makes the other one."""
        return self.model_copy(update={"requested_by": other.requested_by, "requester": other.requester})

    @property
    def options(self) -> Data:
        """As the source's agent takes them. Raises Refused where what is asked makes no sense."""
        wanted, wrong = objective(self.asked)
        if wanted is None:
            raise Refused(wrong)
        options: Data = {OBJECTIVE: wanted.model_dump(mode="json")}
        if self.rehearse:
            options["rehearse"] = self.rehearse
        if self.requester is not None:
            options[REQUESTER] = self.requester.model_dump(mode="json")
        return options


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
        options=request.options | {EXPECTATIONS: expectations.model_dump(mode="json")},
        created_at=created_at,
        requested_by=request.requested_by,
    )


def start_params(proposed: Migration) -> Data:
    """Parameters of `start_migration`, as every agent gets them."""
    return {
        "id": proposed.id,
        "vm": proposed.vm_uuid,
        "destination": proposed.destination,
        "options": proposed.options,
        "requested_by": proposed.requested_by,
    }


def check_params(vm: VmRecord, destination: str, options: Data) -> Data:
    """Parameters of `check_migration`; `options` are the request's."""
    return {"vm": vm.uuid, "destination": destination, "options": options}
