"""`POST /v1/doctor`, and the command."""

from __future__ import annotations

import pytest

from sterna.cli.doctor import exit_of, lines
from sterna.cli.exits import Exit
from sterna.domain.access import UserRole

from ..controller.conftest import World
from .clients import client, served
from .rest import Api


async def test_it_answers_with_every_line(api: Api) -> None:
    api.world.b.looks = {"kvm": False}
    answer = (await api.http.post("/v1/doctor", json={"hosts": ["b"]})).json()
    assert (answer["level"], answer["hosts_asked"], answer["silent_hosts"]) == ("wrong", 1, [])
    (kvm,) = [one for one in answer["findings"] if one["check"] == "kvm"]
    assert set(kvm) == {"check", "level", "host", "peer", "message", "fix"}
    await api.problem("POST", "/v1/doctor", 404, json={"hosts": ["nobody"]})
    await api.problem("POST", "/v1/doctor", 422, json={"host": "b"})


@pytest.mark.parametrize(("role", "status"), [(UserRole.VIEWER, 403), (UserRole.OPERATOR, 200)])
async def test_operators_may(world: World, role: UserRole, status: int) -> None:
    async with client(served(world.controller), role) as http:
        assert (await http.post("/v1/doctor", json={})).status_code == status


FINDINGS = [
    {"check": "kvm", "level": "ok", "host": "a", "peer": "", "message": "KVM can be used", "fix": ""},
    {
        "check": "peer-libvirt",
        "level": "wrong",
        "host": "a",
        "peer": "b",
        "message": "no \x1b[2J route",
        "fix": "do",
    },
]


def test_the_commands_lines() -> None:
    assert list(lines(FINDINGS)) == [
        "[bold]a[/]",
        "  [green]ok      [/] kvm: KVM can be used",
        "  [red]wrong   [/] peer-libvirt to b: no \\x1b[2J route",
        "           fix: do",
        "1 ok, 0 warnings, 1 wrong",
    ]
    assert "kvm" not in "".join(lines(FINDINGS, problems=True))
    assert exit_of(FINDINGS) is Exit.WRONG and exit_of(FINDINGS[:1]) is Exit.OK
