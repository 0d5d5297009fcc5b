"""An agent's doctor over simulated hosts: what one host sees of itself and of another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest

from sterna.agent.doctor import Doctor
from sterna.domain.doctor.looks import Frames, Seen
from sterna.domain.errors import Refused, Temporary, Unreachable
from sterna.domain.model import Data, Refusal
from sterna.ports.doctor import DoctorTools, Part, Sent
from tests.saga.fleet import SimFleet
from tests.saga.playing import run

BLOCKED = Refusal(code="stream-blocked", message="no memory stream reaches it", fix="open the firewall")
FOLDER = "/srv/shared"


class Probe:
    """Both halves of a stream's way."""

    def __init__(self) -> None:
        self.refused: Refusal | None = None

    async def expect(self, needed: int = 1, promise_to: str = "") -> int:
        return 49152

    async def knock(self, address: str, port: int) -> Refusal | None:
        return self.refused


class Path:
    """Packets of full size, and names."""

    def __init__(self) -> None:
        self.sent, self.unresolved = Sent(Frames.PASSED, 8948), ""

    async def send(self, address: str, port: int) -> Sent:
        return self.sent

    async def resolve(self, address: str) -> str:
        return self.unresolved


class Folders:
    """One shared folder, besides those that are asked about."""

    async def shared(self, folders: tuple[str, ...]) -> dict[str, bool]:
        return dict.fromkeys(folders, False) | {FOLDER: True}


async def fine() -> Data:
    return {"kvm": True}


async def broken() -> Data:
    raise Temporary("the disk does not answer")


class Scene:
    """Two hosts, the first of which looks."""

    def __init__(self, fleet: SimFleet, probe: Probe, path: Path) -> None:
        self.fleet, self.probe, self.path = fleet, probe, path
        self.instances_dir = fleet.world.hosts["host1"].instances_dir

    async def seen(self) -> Seen:
        agent = self.fleet.agents["host1"]._agent
        assert agent is not None
        tools = DoctorTools(
            (Part("KVM", fine), Part("the disk", broken)), self.path, Folders(), instances_dir=self.instances_dir
        )
        agent.doctor._tools = tools
        address = self.fleet.world.hosts["host2"].address
        raw = await self.fleet.client.call("host1", "examine", {"peers": [{"name": "host2", "address": address}]})
        return Seen.model_validate(raw)


def play(scenario: Callable[[Scene], Awaitable[None]]) -> Awaitable[SimFleet]:
    fleet, probe, path = SimFleet(), Probe(), Path()
    for agent in fleet.agents.values():
        agent.settings["probe"] = probe

    async def inside(fleet: SimFleet) -> None:
        await scenario(Scene(fleet, probe, path))

    return run(inside, fleet)


async def test_a_host_looks_at_itself() -> None:
    async def scenario(scene: Scene) -> None:
        look = (await scene.seen()).look
        assert look.host == "host1" and look.kvm and look.facts is not None and look.nova_vms == 0
        assert look.unseen == ("the disk: the disk does not answer",) and look.now
        scene.fleet.world.hosts["host1"].libvirtd_up = False
        away = (await scene.seen()).look
        assert away.facts is None and away.libvirt_error and away.kvm
        scene.fleet.world.hosts["host1"].libvirtd_up = True

    await play(scenario)


async def test_a_host_looks_at_another() -> None:
    async def scenario(scene: Scene) -> None:
        (peer,) = (await scene.seen()).peers
        assert (peer.peer, peer.libvirt, peer.stream, peer.stream_tried) == ("host2", None, None, True)
        assert (peer.frames, peer.segment, peer.error) == (Frames.PASSED, 8948, "")
        seen = {folder.path: (folder.network, folder.seen) for folder in peer.folders}
        assert seen == {scene.instances_dir: (False, False), FOLDER: (True, True)}
        tokens = [p for h in scene.fleet.world.hosts.values() for p, _ in h.files() if ".sterna-" in p]
        assert tokens == []

    await play(scenario)


async def test_its_clock_is_read_when_it_has_looked_at_all() -> None:
    async def scenario(scene: Scene) -> None:
        clock = scene.fleet.clock

        async def slowly(address: str) -> str:
            await clock.sleep(30)
            return ""

        scene.path.resolve = slowly  # type: ignore[method-assign]
        began = clock.now()
        look = (await scene.seen()).look
        assert (datetime.fromisoformat(look.now) - began).total_seconds() >= 30
        assert look.took_s is not None and 30 <= look.took_s <= (clock.now() - began).total_seconds()

    await play(scenario)


async def test_what_is_wrong_on_the_way_is_seen() -> None:
    async def scenario(scene: Scene) -> None:
        scene.path.sent = Sent(Frames.LOST, 8948)
        assert (await scene.seen()).peers[0].frames is Frames.LOST
        scene.probe.refused = BLOCKED
        assert (await scene.seen()).peers[0].stream == BLOCKED
        scene.path.unresolved = "no such name"
        (unresolved,) = (await scene.seen()).peers
        assert unresolved.name_error == "no such name" and not unresolved.stream_tried
        scene.path.unresolved, scene.probe.refused = "", None
        scene.fleet.world.hosts["host2"].libvirtd_up = False
        libvirt = (await scene.seen()).peers[0].libvirt
        assert libvirt is not None and libvirt.code == "peer-unreachable"
        scene.fleet.world.hosts["host2"].libvirtd_up = True

    await play(scenario)


async def test_a_peer_without_an_agent() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.fleet.agents["host2"].kill()
        (peer,) = (await scene.seen()).peers
        assert "host2" in peer.error

    await play(scenario)


async def test_without_a_running_agent_only_its_own_host_is_asked() -> None:
    async def scenario(scene: Scene) -> None:
        doctor = Doctor(scene.fleet.agents["host1"].ports(), DoctorTools(path=scene.path))
        (peer,) = (await doctor.seen([("host2", scene.fleet.world.hosts["host2"].address)])).peers
        assert (peer.libvirt, peer.stream_tried, peer.folders) == (None, False, ())

    await play(scenario)


@pytest.mark.parametrize("peers", [[{"name": "host2"}], [{"name": "h" * 64, "address": "x"}], [{}] * 17, "host2"])
async def test_a_request_that_makes_no_sense(peers: object) -> None:
    async def scenario(scene: Scene) -> None:
        with pytest.raises(Exception, match=r"peers|examine") as caught:
            await scene.fleet.client.call("host1", "examine", {"peers": peers})
        assert not isinstance(caught.value, Unreachable | Refused)

    await play(scenario)
