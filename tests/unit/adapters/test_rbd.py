"""Ceph images without a volume service: every host reaches them alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from sterna.adapters.volumes.rbd import RbdVolumes
from sterna.bootstrap.host import volumes_of
from sterna.config import AgentSettings, load
from sterna.domain.model import Disk, DiskKind, RbdSource

IMAGE = Disk(target="vda", kind=DiskKind.RBD, rbd=RbdSource(name="vms/web_disk", monitors=("10.0.0.7:6789",)))


SETTINGS = """
host = "host1"
state_dir = "/var/lib/sterna"
instances_dir = "/srv/instances"
[migration]
address = "10.0.0.1"
"""


def test_without_cinder_they_have_a_provider(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(SETTINGS)
    chosen = volumes_of(load(AgentSettings, tmp_path / "agent.toml"), None, None)  # type: ignore[arg-type]
    (found,) = [volumes for volumes in chosen if volumes.handles(IMAGE)]
    assert isinstance(found, RbdVolumes)
    file = IMAGE.model_copy(update={"kind": DiskKind.FILE, "rbd": None, "path": "/a", "local": True})
    assert not found.handles(file)


@pytest.mark.parametrize("times", [1, 2])
async def test_nothing_is_admitted_or_changed(times: int) -> None:
    volumes = RbdVolumes()
    for _ in range(times):
        assert await volumes.check(IMAGE, "host1") == []
        assert await volumes.attach(IMAGE, "host1") == IMAGE == await volumes.connect(IMAGE)
        assert not await volumes.admitted(IMAGE)
        await volumes.disconnect(IMAGE)
        await volumes.detach(IMAGE)
