"""The provider says to Cinder exactly what it said when the real Cinder 29.0.0 answered, and understands it.

Recorded by `STERNA_RECORD=1 make test-openstack CASE=cinder`: tests/openstack/test_cinder.py tells the same
stories.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.volumes.cinder.volumes import CinderVolumes
from sterna.domain.errors import Temporary
from sterna.domain.model import Disk
from tests.scripted_cloud import Answer, Asked, ScriptedCloud
from tests.unit.adapters.cinder.scripted_cinder import disk, initiator, provider

RECORDED = Path(__file__).parent / "recorded"


class Replay:
    """Answers as recorded, and only to the same requests in the same order."""

    def __init__(self, story: str) -> None:
        self.lines: list[dict[str, Any]] = json.loads((RECORDED / f"{story}.json").read_text())
        self.position = 0
        first = self.lines[1]["answer"]["attachments"][0]
        self.volume, self.vm = first["volume_id"], first["instance"]

    def disk(self) -> Disk:
        made = disk(volume_id=self.volume, vm_uuid=self.vm)
        assert made.iscsi is not None
        target = f"iqn.2026-11.lab.sterna:{self.volume}"
        return made.model_copy(update={"iscsi": made.iscsi.model_copy(update={"target": target})})

    def __call__(self, asked: Asked) -> Answer:
        line = self.lines[self.position]
        said = (asked.method, asked.path, asked.body)
        if said != (line["method"], line["path"], line["body"]):
            return Answer(400, {"badRequest": {"code": 400, "message": f"was {line['path']}, is {said}"}})
        self.position += 1
        return Answer(line["status"], line["answer"])


def sides(replay: Replay, cloud: ScriptedCloud, qemu_img: str) -> tuple[CinderVolumes, CinderVolumes]:
    return provider(cloud, "host1", qemu_img), provider(cloud, "host2", qemu_img)


async def test_there_and_back(qemu_img: str) -> None:
    replay = Replay("there-and-back")
    with ScriptedCloud(replay) as cloud:
        host1, host2 = sides(replay, cloud, qemu_img)
        mine = replay.disk()
        assert await host2.check(mine, "host1") == []
        attached = await host2.attach(mine, "host1")
        assert attached.iscsi is not None and mine.iscsi is not None
        assert attached.iscsi == mine.iscsi.model_copy(update={"initiator": initiator("host2")})
        assert await host2.attach(mine, "host1") == attached
        for _ in range(2):
            assert await host2.connect(attached) == attached
        assert await host1.admitted(mine) and await host2.admitted(mine)
        for _ in range(2):
            await host1.detach(mine)
        assert not await host1.admitted(mine)
        with pytest.raises(Temporary):
            await host2.detach(mine)
        await host1.connect(await host1.attach(attached, "host2"))
        await host2.detach(attached)
    assert replay.position == len(replay.lines)


async def test_a_lost_answer(qemu_img: str) -> None:
    replay = Replay("lost-answer")
    with ScriptedCloud(replay) as cloud:
        _, host2 = sides(replay, cloud, qemu_img)
        mine = replay.disk()
        await host2.attach(mine, "host1")  # made, and forgotten
        assert await host2.check(mine, "host1") == []
        await host2.connect(await host2.attach(mine, "host1"))
        await host2.detach(mine)
        await host2.attach(mine, "host1")
        host1 = provider(cloud, "host1", qemu_img)
        await host1.detach(mine.model_copy(update={"vm_uuid": "00000000-0000-4000-8000-000000000000"}))
        await host2.detach(mine)
    assert replay.position == len(replay.lines)
