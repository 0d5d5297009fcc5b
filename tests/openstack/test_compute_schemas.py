"""Every answer of the Compute API passes the schema that Nova keeps of its own: no field too many, none too few.

Needs Nova in an environment of its own, and no server: the answers are those of a controller with three hosts.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.openstack.installing import nova_python
from tests.unit.api.compute.cloud import FLAVOR, LOST1, OURS, VOLUME, WEB1, Cloud, make
from tests.unit.controller.conftest import World, world

__all__ = ["world"]
UNKNOWN = "00000000-0000-4000-8000-000000000000"
SCRIPT = Path(__file__).parent / "nova_schemas.py"
VERSIONS = ("2.1", "2.25", "2.30", "2.53", "2.56", "2.59", "2.65", "2.75", "2.80", "2.88", "2.89", "2.96")
AT_REST = (
    "/servers", "/servers/detail", "/servers/detail?all_tenants=True&limit=2", f"/servers/{WEB1}",
    f"/servers/{LOST1}", f"/servers/{WEB1}/tags", f"/servers/{WEB1}/os-volume_attachments",
    f"/servers/{WEB1}/os-volume_attachments/{VOLUME}", "/os-services", "/os-hypervisors", "/os-hypervisors/detail",
    "/os-hypervisors?with_servers=True", "/os-hypervisors/statistics", "/os-hosts", "/os-hosts/a", "/flavors",
    "/flavors/detail", f"/flavors/{FLAVOR}", f"/flavors/{FLAVOR}/os-extra_specs", "/os-availability-zone",
    "/os-availability-zone/detail", "/os-aggregates", f"/servers/{WEB1}/os-interface",
    f"/servers/{WEB1}/os-interface/cccccccc{WEB1[8:]}", f"/servers/{WEB1}/diagnostics",
)  # fmt: skip
MOVING = ("/servers/detail", f"/servers/{WEB1}", f"/servers/{WEB1}/migrations", f"/servers/{WEB1}/migrations/1",
          "/os-migrations", "/os-migrations?limit=1", f"/servers/{WEB1}/os-instance-actions")  # fmt: skip
FOR_ALL = ("/servers", "/servers/detail", f"/servers/{WEB1}", f"/servers/{WEB1}/os-instance-actions")
Answers = list[dict[str, Any]]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/controller.db"


@pytest.fixture
async def cloud(world: World) -> AsyncIterator[Cloud]:
    made = await make(world)
    async with made.http:
        yield made


async def gather(cloud: Cloud, answers: Answers, paths: tuple[str, ...], token: str = "admin") -> None:
    """All good answers, in each version that has the route."""
    for path in paths:
        for version in VERSIONS:
            answer = await cloud.ask(path, version, token=token)
            assert answer.status_code in (200, 404), answer.text
            if answer.status_code == 200:
                seen = {"method": "GET", "path": path.partition("?")[0], "version": version}
                answers.append(seen | {"body": answer.json()})


async def everything(cloud: Cloud) -> Answers:
    answers: Answers = []
    await gather(cloud, answers, AT_REST)
    assert (await cloud.migrate()).status_code == 202
    await cloud.world.pull()
    (done,) = (await cloud.get(f"/servers/{WEB1}/os-instance-actions"))["instanceActions"]
    actions = f"/servers/{WEB1}/os-instance-actions/{done['request_id']}"
    await gather(cloud, answers, (*MOVING, actions))
    for token in ("manager", "reader"):
        await gather(cloud, answers, (*FOR_ALL, actions), token)
    await gather(cloud, answers, (f"/servers/{WEB1}/migrations",), "manager")
    for version in ("2.80", "2.96"):
        (own,) = (await cloud.get(f"/os-migrations?project_id={OURS}", version, "manager"))["migrations"]
        answers.append(
            {"method": "GET", "path": "/os-migrations", "version": version, "body": {"migrations": [own]}}
        )
    await cloud.arrive()
    await gather(cloud, answers, (*MOVING[:2], *MOVING[4:], actions))
    for version in VERSIONS:
        event = {"name": "network-vif-plugged", "server_uuid": WEB1, "tag": "p-1"}
        posted = {"events": [event, event | {"server_uuid": UNKNOWN}, {"name": event["name"], "server_uuid": WEB1}]}
        path = "/os-server-external-events"
        told = await cloud.ask(path, version, method="POST", token="service", body=posted)
        assert told.status_code == 207, told.text
        answers.append({"method": "POST", "path": path, "version": version, "body": told.json()})
    for version in ("2.53", "2.69", "2.96"):
        (service, *_) = (await cloud.get("/os-services", version))["services"]
        path = f"/os-services/{service['id']}"
        changed = await cloud.ask(path, version, method="PUT", body={"status": "disabled", "disabled_reason": "x"})
        answers.append({"method": "PUT", "path": path, "version": version, "body": changed.json()})
        await gather(cloud, answers, ("/os-services", "/os-hypervisors/detail"))
    return answers


def judge(answers: Answers, folder: Path) -> dict[str, Any]:
    """What Nova's schemas say of them."""
    file = folder / "answers.json"
    file.write_text(json.dumps(answers))
    judged = subprocess.run([nova_python(), str(SCRIPT), str(file)], capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stderr[-2000:]
    return dict(json.loads(judged.stdout.splitlines()[-1]))


async def test_each_answer_passes_novas_own_schemas(cloud: Cloud, tmp_path: Path) -> None:
    answers = await everything(cloud)
    found = judge(answers, tmp_path)
    assert found["wrong"] == []
    assert found["without"] == {}
    assert sum(found["valid"].values()) == len(answers) > 400


async def test_what_is_wrong_is_found(cloud: Cloud, tmp_path: Path) -> None:
    shown = await cloud.get(f"/servers/{WEB1}", "2.80")
    shown["server"]["too_much"] = 1
    seen = {"method": "GET", "path": f"/servers/{WEB1}", "version": "2.80", "body": shown}
    (wrong,) = judge([seen], tmp_path)["wrong"]
    assert "too_much" in wrong["why"]
