"""A destination believes a controller's signature on exactly this migration, and nothing else."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from sterna.adapters.identity import permits, private_files
from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.permits import OwnPermits, PermitCheck
from sterna.adapters.identity.revoked import RevokedFile
from sterna.domain.errors import NotFound, Temporary
from sterna.domain.journal import LONGEST_PERMIT, Migration
from sterna.domain.options import MigrationOptions
from sterna.domain.trust.permits import VALID
from tests.unit.adapters.identities import C1, HOST1, HOST2, Calendar, controller, join

ASKED = Migration(
    id="m", epoch=0, vm_uuid="vm", vm_name="tern", source="host1", destination="host2", created_at="2026-01-01"
)


@dataclass
class Stage:
    folder: Path
    authority: Authority
    calendar: Calendar

    async def permit(self, asked: Migration = ASKED, signer: str = "c1") -> str:
        return await OwnPermits(self.folder / signer, self.calendar).issue(asked)

    async def against(self, permit: str, **changed: object) -> str:
        migration = ASKED.model_copy(update={"epoch": 7, "permit": permit, **changed})
        return await PermitCheck(self.folder / "host2", self.calendar).against(migration)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    calendar = Calendar()
    authority = Authority.make(tmp_path / "ca", ["sterna"], calendar)
    controller(authority, tmp_path / "c1", "127.0.0.1")
    join(authority, HOST1, tmp_path / "host1")
    join(authority, HOST2, tmp_path / "host2")
    return Stage(tmp_path, authority, calendar)


async def test_what_a_controller_has_asked_for(stage: Stage) -> None:
    permit = await stage.permit()
    assert len(permit) < LONGEST_PERMIT / 2
    assert await stage.against(permit) == ""
    assert await stage.against(permit, vm_name="renamed", source_address="10.0.0.1") == ""


@pytest.mark.parametrize("what", ["id", "vm_uuid", "source", "destination"])
async def test_it_is_for_one_migration(what: str, stage: Stage) -> None:
    assert f"its {what} is" in await stage.against(await stage.permit(), **{what: "another"})


async def test_it_says_what_the_cloud_calls_the_hosts(stage: Stage) -> None:
    """A source could else name any host of the cloud, and bring what is there."""
    true, false = (MigrationOptions(network_hosts=names) for names in (("cloud1", ""), ("cloud3", "")))
    permit = await stage.permit(ASKED.model_copy(update={"options": true}))
    assert await stage.against(permit, options=true) == ""
    for options in (false, MigrationOptions()):
        assert "its network_hosts is" in await stage.against(permit, options=options)
    assert await stage.against(await stage.permit(), options=MigrationOptions(network_hosts=("host1", ""))) == ""


async def test_it_is_for_a_day(stage: Stage) -> None:
    permit = await stage.permit()
    began = stage.calendar.at
    stage.calendar.at = began + VALID - timedelta(seconds=1)
    assert await stage.against(permit) == ""
    stage.calendar.at = began + VALID
    assert "expired" in await stage.against(permit)


async def test_none_is_no_permit(stage: Stage) -> None:
    assert "no permit" in await stage.against("")


def _other_body(permit: str) -> str:
    body, *rest = permit.split(".")
    other = base64.urlsafe_b64decode(body).replace(b'"host1"', b'"host3"')
    return ".".join([base64.urlsafe_b64encode(other).decode(), *rest])


SPOILT: dict[str, Callable[[str], str]] = {
    "another body": _other_body,
    "a part is missing": lambda permit: permit.rpartition(".")[0],
    "a part too many": lambda permit: f"{permit}.AAAA",
    "not base64": lambda permit: "ü" + permit,
    "empty parts": lambda permit: "..",
    "too long": lambda permit: permit + "A" * LONGEST_PERMIT,
    "no certificate": lambda permit: permit.rpartition(".")[0] + ".AAAA",
    "no signature": lambda permit: f"{permit.split('.')[0]}..{permit.split('.')[2]}",
}


@pytest.mark.parametrize("how", SPOILT)
async def test_what_was_changed_is_refused(how: str, stage: Stage) -> None:
    assert await stage.against(SPOILT[how](await stage.permit())) != ""


async def test_a_hosts_own_signature_is_none(stage: Stage) -> None:
    """It has a certificate of the same CA. It may write what it likes into its own program."""

    class Forger(OwnPermits):
        def __init__(self, stage: Stage) -> None:
            super().__init__(stage.folder / "host1", stage.calendar)

    assert "not a controller's" in await stage.against(await Forger(stage).issue(ASKED))


async def test_a_controller_of_another_ca(stage: Stage) -> None:
    other = Authority.make(stage.folder / "other", ["sterna"], stage.calendar)
    controller(other, stage.folder / "c9", "127.0.0.1")
    assert "not of this host's CA" in await stage.against(await stage.permit(signer="c9"))


async def test_a_controller_that_was_removed(stage: Stage) -> None:
    permit = await stage.permit()
    stage.authority.remove(C1)
    assert await stage.against(permit) == "", "nobody has told this host yet"
    given = stage.authority.revoked_in(stage.authority.register())
    assert given is not None
    RevokedFile(stage.folder / "host2").take(given.pem)
    assert "was revoked" in await stage.against(permit)


async def test_a_controllers_renewed_certificate(stage: Stage) -> None:
    before = await stage.permit()
    controller(stage.authority, stage.folder / "c1", "127.0.0.1")
    assert await stage.against(before) == await stage.against(await stage.permit()) == ""


async def test_a_certificate_that_has_expired(stage: Stage) -> None:
    stage.calendar.at += timedelta(days=100)
    assert "is valid from" in await stage.against(await stage.permit())


async def test_files_that_cannot_be_read_refuse_nothing_for_good(stage: Stage) -> None:
    permit = await stage.permit()
    (stage.folder / "host2/revoked.crl").write_text("damaged")
    with pytest.raises(Temporary):
        await stage.against(permit)
    with pytest.raises(NotFound):
        await stage.permit(signer="nobody")


async def test_a_disk_that_hangs_is_waited_for_a_moment_only(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither answer comes. What was signed before is good once it does."""
    permit, answers = await stage.permit(), threading.Event()
    read, ca = private_files.read, OwnFiles.ca

    def hang() -> bool:
        return answers.wait(60)

    with monkeypatch.context() as hanging:
        hanging.setattr(permits, "_LIMIT_S", 0.1)
        hanging.setattr(private_files, "read", lambda *a, **k: hang() and read(*a, **k))
        hanging.setattr(OwnFiles, "ca", lambda own: hang() and ca(own))
        with pytest.raises(Temporary, match=r"key cannot be read: no answer within 0\.1 s"):
            await stage.permit()
        with pytest.raises(Temporary, match=r"permit cannot be checked: no answer within 0\.1 s"):
            await stage.against(permit)
        answers.set()
    assert await stage.against(await stage.permit()) == await stage.against(permit) == ""
