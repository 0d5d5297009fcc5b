"""One more endpoint touches four files of the source at most.

What is added in a copy here, and runs there, is what docs/contributing/adding-an-endpoint.md tells to do: once in a
module that fits, with an action of its own, and once in a module of its own.
"""

from __future__ import annotations

from pathlib import Path

from tests.shape.seams import AT_MOST, Copy

INTENT = '''
"""A made-up intent: a migration gets a label."""

from __future__ import annotations

from sterna.domain.errors import Conflict
from sterna.ports.fleet import Fleet, MigrationRecord


class LabelMigration:
    """The intent "call it so"."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._labels = fleet, dict[str, str]()

    async def label(self, migration_id: str, label: str) -> MigrationRecord:
        record = await self._fleet.migration(migration_id)
        if self._labels.setdefault(record.id, label) != label:
            raise Conflict(f"migration {record.id} is called {self._labels[record.id]} already")
        return record
'''
ROUTE = '''

class LabelIn(BaseModel):
    """What it is to be called."""

    model_config = ConfigDict(extra="forbid")
    label: str = Field(max_length=20, description="In the user's own words.")


@router.put("/migrations/{id}/label", summary="Label a migration", dependencies=[needs(Action.%s)],
            responses=documented(404, 409))
async def label_migration(id: MigrationId, wanted: LabelIn, controller: Served) -> MigrationOut:
    """May be repeated. 409 where it has another label."""
    return MigrationOut.of(await controller.label(id, wanted.label))
'''
MODULE = """
from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from sterna.api.access import needs
from sterna.api.migration_models import MigrationOut
from sterna.api.problems import documented
from sterna.api.dependencies import MigrationId, Served
from sterna.domain.access import Action

router = APIRouter(prefix="/v1", tags=["migrations"])
"""
USED = """
import asyncio
from sterna.adapters.sql.fleet import SqlFleet
from sterna.controller.controller import Controller
from sterna.domain.access import UserRole
from tests.unit.api.clients import client, served
from tests.unit.api.rest import body
from tests.unit.controller.fakes import FakeAgent, FakeBus, HandClock
from tests.unit.controller.requests import ID


async def scenario():
    a, b = FakeAgent("a", 1), FakeAgent("b", 2)
    a.add_vm("web1", 1)
    bus = FakeBus(a, b)
    controller = Controller(SqlFleet.open("sqlite:///controller.db"), bus, HandClock())
    await bus.beat(controller)
    app = served(controller)
    async with client(app) as admin, client(app, UserRole.VIEWER) as viewer:
        assert (await admin.post("/v1/migrations", json=body())).status_code == 202
        answers = []
        for who, label in ((viewer, "mine"), (admin, "mine"), (admin, "mine"), (admin, "yours"), (admin, "x" * 21)):
            answers.append(await who.put(f"/v1/migrations/{ID}/label", json={"label": label}))
        assert [a.status_code for a in answers] == [403, 200, 200, 409, 422], [a.text for a in answers]
        assert answers[1].json()["id"] == ID
        paths = (await admin.get("/openapi.json")).json()["paths"]
        assert paths["/v1/migrations/{id}/label"]["put"]["x-role"] == "operator"
    await controller.stop()


asyncio.run(scenario())
"""


def with_intent(folder: Path) -> Copy:
    """A copy whose controller can label a migration."""
    copy = Copy(folder)
    copy.write("controller/intents/label_migration.py", INTENT)
    imports = "from sterna.controller.intents.migrate_vm"
    line = "from sterna.controller.intents.label_migration import LabelMigration\n"
    copy.insert("controller/controller.py", imports, line)
    copy.insert(
        "controller/controller.py", "        self._tune = ", "        self.label = LabelMigration(fleet).label\n"
    )
    return copy


def must_serve(copy: Copy) -> None:
    done = copy.run(USED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(copy.touched()) <= AT_MOST, copy.touched()


def test_an_endpoint_with_an_action_of_its_own_touches_four_files_and_serves(tmp_path: Path) -> None:
    copy = with_intent(tmp_path)
    copy.insert("domain/access.py", '    POST_COPY = "post-copy"', '    LABEL = "label"\n')
    copy.insert("domain/access.py", "    Action.POST_COPY: UserRole", "    Action.LABEL: UserRole.OPERATOR,\n")
    copy.replace("api/tuning.py", ", dependencies=[needs(Action.TUNE)])\n", ")\n")
    copy.replace("api/tuning.py", 'running copy",\n', 'running copy", dependencies=[needs(Action.TUNE)],\n')
    copy.append("api/tuning.py", ROUTE % "LABEL")
    must_serve(copy)


def test_an_endpoint_in_a_module_of_its_own_touches_four_files_and_serves(tmp_path: Path) -> None:
    copy = with_intent(tmp_path)
    copy.write("api/labels.py", MODULE + ROUTE % "TUNE")
    copy.insert("api/app.py", "    metrics,\n    migrations,", "    labels,\n")
    copy.replace(
        "api/app.py",
        "    tuning,\n    tokens,\n    external",
        "    tuning,\n    labels,\n    tokens,\n    external",
    )
    must_serve(copy)
