"""What Neutron, Cinder and a Nova are asked about servers, and what each answer means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sterna.adapters.openstack.session import Cloud, CloudAccess
from sterna.adapters.servers.reads import AT_ONCE, CinderReads, NeutronReads, OtherNova
from sterna.domain.errors import Unreachable
from sterna.ports.cloud import CloudVolume, ServerPort, VolumeAttachment
from tests.scripted_cloud import Answer, Asked, Script, ScriptedCloud

WEB1, DB1 = "aaaaaaaa-0000-4000-8000-000000000001", "aaaaaaaa-0000-4000-8000-000000000002"
VOLUME = "42bec667-7dd8-4de5-8734-b3b9164dc959"
PORT = {
    "id": "p-1",
    "device_id": WEB1,
    "project_id": "ours",
    "network_id": "n-1",
    "mac_address": "fa:16:3e:89:a3:36",
    "binding:host_id": "host1",
    "status": "ACTIVE",
    "fixed_ips": [{"subnet_id": "s-1", "ip_address": "10.79.0.35"}],
}


@contextmanager
def serving(script: Script) -> Iterator[tuple[Cloud, ScriptedCloud]]:
    with ScriptedCloud(script) as scripted:
        scripted.services = ScriptedCloud.services | {"compute": "/compute/v2.1"}
        yield (
            Cloud(CloudAccess(auth_url=scripted.auth_url, username="sterna", password="pw", timeout_s=5)),
            scripted,
        )


def neutron(ports: list[dict[str, Any]]) -> Script:
    def answer(asked: Asked) -> Answer | None:
        if asked.path.startswith("/v2.0/networks"):
            return Answer(body={"networks": [{"id": "n-1", "name": "net1"}]})
        wanted = parse_qs(urlsplit(asked.path).query)["device_id"]
        return Answer(body={"ports": [port for port in ports if port["device_id"] in wanted]})

    return answer


async def test_ports_of_servers_with_the_names_of_their_networks() -> None:
    with serving(neutron([PORT, PORT | {"id": "p-2", "device_id": DB1, "network_id": "n-2"}])) as (cloud, scripted):
        reads = NeutronReads(cloud)
        found = await reads.ports([WEB1, DB1])
        assert found[0] == ServerPort(
            id="p-1",
            server=WEB1,
            project_id="ours",
            network="net1",
            mac="fa:16:3e:89:a3:36",
            addresses=("10.79.0.35",),
            subnets=("s-1",),
            network_id="n-1",
            status="ACTIVE",
        )
        assert found[1].network == "n-2"  # one whose name is not said
        assert [p.id for p in await reads.ports([WEB1])] == ["p-1"]
        assert sum("networks" in asked.path for asked in scripted.asked) == 1  # n-1 is known by then
        assert scripted.changes() == []


async def test_a_port_that_no_host_has_proves_nothing() -> None:
    """Every user may write a server's ID into a port of their own; only services bind one to a host."""
    forged = PORT | {"id": "p-9", "project_id": "theirs", "binding:host_id": ""}
    with serving(neutron([PORT, forged])) as (cloud, _):
        assert [(p.id, p.project_id) for p in await NeutronReads(cloud).ports([WEB1])] == [("p-1", "ours")]


async def test_many_servers_are_asked_about_in_several_questions() -> None:
    with serving(neutron([PORT])) as (cloud, scripted):
        many = [f"aaaaaaaa-0000-4000-8000-{n:012d}" for n in range(2 * AT_ONCE + 1)]
        assert len(await NeutronReads(cloud).ports(many)) == 1
        assert sum("ports" in asked.path for asked in scripted.asked) == 3
        assert await NeutronReads(cloud).ports([]) == []


def cinder(asked: Asked) -> Answer | None:
    if asked.path == f"/v3/volumes/{VOLUME}":
        return Answer(body={"volume": {"id": VOLUME, "os-vol-tenant-attr:tenant_id": "ours"}})
    if asked.path.startswith("/v3/attachments?"):
        listed = [
            {"id": "a-1", "volume_id": VOLUME, "instance": WEB1, "status": "attached"},
            {"id": "a-2", "volume_id": VOLUME, "instance": None, "status": "reserved"},
            {"id": "a-3", "volume_id": "another", "instance": WEB1, "status": "attached"},
        ]
        return Answer(body={"attachments": listed})
    return None


async def test_a_volume_with_its_project_and_attachments() -> None:
    with serving(cinder) as (cloud, scripted):
        assert await CinderReads(cloud).volume(VOLUME) == CloudVolume(
            id=VOLUME,
            project_id="ours",
            attachments=(
                VolumeAttachment(id="a-1", server=WEB1, status="attached"),
                VolumeAttachment(id="a-2", server="", status="reserved"),
            ),
        )
        assert any("all_tenants=1" in asked.path for asked in scripted.asked) and scripted.changes() == []
        assert await CinderReads(cloud).volume("another") is None


async def test_a_nova_says_where_it_has_a_server() -> None:
    def nova(asked: Asked) -> Answer | None:
        if asked.path == f"/compute/v2.1/servers/{WEB1}":
            return Answer(body={"server": {"OS-EXT-SRV-ATTR:host": "compute7"}})
        if asked.path == f"/compute/v2.1/servers/{DB1}":
            return Answer(body={"server": {"OS-EXT-SRV-ATTR:host": None}})  # shelved
        if asked.path == "/compute/v2.1/os-services?binary=nova-compute":
            return Answer(body={"services": [{"host": "compute7"}, {"host": "compute8"}]})
        return None

    with serving(nova) as (cloud, scripted):
        reads = OtherNova(cloud, "RegionOne", "internal")
        assert await reads.hosts() == ["compute7", "compute8"]
        assert await reads.host_of(WEB1) == "compute7"
        assert await reads.host_of(DB1) == "none"
        assert await reads.host_of(VOLUME) is None
        assert scripted.changes() == []
        with pytest.raises(Unreachable):
            await OtherNova(cloud, "elsewhere", "internal").host_of(WEB1)


NOWHERE = [
    Answer(404, "<html>404 Not Found: nginx</html>"),
    Answer(404, {}),
    Answer(404, {"code": "404 Not Found", "message": "The resource could not be found.", "title": "Not Found"}),
    Answer(404, {"itemNotFound": "x"}),
    Answer(404, []),
    Answer(404),
    Answer(300, {"choices": []}),
]
"""Of a proxy, of a catalog with the wrong address (Nova's own for an unknown path among them)."""


@pytest.mark.parametrize("answer", NOWHERE)
async def test_only_the_services_own_word_says_that_something_is_not_there(answer: Answer) -> None:
    """Taken for one, a proxy's 404 would permit to move what Nova has, and to delete an attachment in use."""
    with serving(lambda _: answer) as (cloud, _):
        for asking in (
            CinderReads(cloud).volume(VOLUME),
            OtherNova(cloud, "RegionOne", "internal").host_of(WEB1),
            OtherNova(cloud, "RegionOne", "internal").hosts(),
            NeutronReads(cloud).ports([WEB1]),
        ):
            with pytest.raises(Unreachable):
                await asking


async def test_a_volume_whose_attachments_are_not_there_is_not_unknown() -> None:
    def answer(asked: Asked) -> Answer | None:
        return cinder(asked) if asked.path == f"/v3/volumes/{VOLUME}" else None

    with serving(answer) as (cloud, _), pytest.raises(Unreachable):
        await CinderReads(cloud).volume(VOLUME)


@pytest.mark.parametrize(
    "answer",
    [Answer(500, {}), Answer(503, {}), Answer(403, {}), Answer(body={}), Answer(body=[]), Answer(lost=True)],
)
async def test_what_is_no_answer_says_nothing(answer: Answer) -> None:
    with serving(lambda _: answer) as (cloud, _):
        for asking in (
            NeutronReads(cloud).ports([WEB1]),
            CinderReads(cloud).volume(VOLUME),
            OtherNova(cloud, "RegionOne", "internal").host_of(WEB1),
        ):
            with pytest.raises(Unreachable):
                await asking
