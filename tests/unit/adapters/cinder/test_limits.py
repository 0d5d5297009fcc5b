"""A Cinder that answers slowly, each time within its limit: all that a row asks of it has a limit, too."""

from __future__ import annotations

import asyncio

import pytest

from sterna.adapters.openstack import session
from sterna.domain.errors import Cancelled, Unreachable
from sterna.kit.aborts import abortable_by
from tests.scripted_cloud import Answer, Asked, ScriptedCloud
from tests.unit.adapters.cinder.scripted_cinder import ScriptedCinder, disk, provider

ANSWER_S = 5.0
"""As long as `provider` lets one take; all that a row asks may take five times that."""


class Slow(ScriptedCinder):
    """Each answer takes its time, by a clock of its own. Many left-overs of a host that fell over."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.aborted, self.abort_at_s = 0.0, asyncio.Event(), 0.0
        self._loop = asyncio.get_event_loop()
        for _ in range(9):
            self.add("host2", "attaching")

    def __call__(self, asked: Asked) -> Answer | None:
        self.now_s += ANSWER_S
        if self.now_s == self.abort_at_s:
            self._loop.call_soon_threadsafe(self.aborted.set)
        return super().__call__(asked)


@pytest.mark.parametrize("part", ["attach", "detach"])
async def test_many_slow_answers_have_a_limit_together(
    part: str, qemu_img: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cinder = Slow()
    monkeypatch.setattr(session, "monotonic", lambda: cinder.now_s)
    with ScriptedCloud(cinder) as cloud:
        with pytest.raises(Unreachable, match="Cinder has needed more than 25 s") as raised:
            await getattr(provider(cloud, "host2", qemu_img), part)(
                disk(), *(["host1"] if part == "attach" else [])
            )
        assert raised.value.fix
        assert cinder.now_s <= 5 * ANSWER_S + 2 * ANSWER_S  # a look is two requests
        done = [status for _, status in cinder.hosts()].count("attached")
        # a repeat has that much less to do
        assert done > 1


async def test_an_abort_is_heard_between_its_requests(qemu_img: str) -> None:
    cinder = Slow()
    cinder.abort_at_s = 4 * ANSWER_S
    with ScriptedCloud(cinder) as cloud, abortable_by(cinder.aborted), pytest.raises(Cancelled):
        await provider(cloud, "host2", qemu_img).attach(disk(), "host1")
    assert len(cloud.changes()) == 2
