"""A host that somebody has taken over has another one look for things: very many, or such as nobody may open."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sterna.adapters.files.storage import FileStorage
from sterna.adapters.volumes.shared_file import SharedFileVolumes
from sterna.domain.errors import BadRequest
from sterna.rpc.envelope import MAX_MESSAGE_BYTES
from sterna.rpc.subjects import call_subject
from tests.contract.guarded import Guarded
from tests.contract.hostile_messages import about_odd_paths, message, numerous
from tests.contract.hostile_stage import HOST3, Stage, reply_to, stage_on


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_on(Guarded(tmp_path)) as stage:
        yield stage


async def test_messages_that_name_very_many_things(stage: Stage) -> None:
    """Refused with a reason, each at once: nothing of them is looked for."""
    before = await stage.picture()
    for n, (method, words) in enumerate(numerous(stage)):
        payload = message(method, words, n=n)
        assert len(payload) < MAX_MESSAGE_BYTES
        error = (await reply_to(stage, call_subject("host2", HOST3.name), payload)).raised()
        assert isinstance(error, BadRequest) and re.search("sent too much|x = '0-65535", error.message)
        await stage.answers()
    assert await stage.picture() == before
    await stage.goes_on()


async def test_paths_of_devices_and_of_files_without_an_end(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files of a real host: it opens none of them."""
    before, real, taken = await stage.picture(), os.open, []

    def watched(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if not flags & os.O_PATH:
            taken.append(os.path.realpath(path))
        return real(path, flags, *more, **named)

    honest = stage.ports["host2"]
    storage, volumes = honest.storage, honest.volumes
    object.__setattr__(honest, "storage", FileStorage(tmp_path))
    object.__setattr__(honest, "volumes", (SharedFileVolumes(), *volumes[1:]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", watched)
        for n, (method, words) in enumerate(about_odd_paths(stage)):
            payload = message(method, words, n=n)
            reply = await reply_to(stage, call_subject("host2", HOST3.name), payload)
            assert reply.kind == "result", reply
            assert not (method == "digest" and reply.data["digest"])
            await stage.answers()
    assert not [path for path in taken if path.startswith(("/dev/", "/proc/kmsg")) or path.endswith("/mem")]
    object.__setattr__(honest, "storage", storage)
    object.__setattr__(honest, "volumes", volumes)
    assert await stage.picture() == before
    await stage.goes_on()
