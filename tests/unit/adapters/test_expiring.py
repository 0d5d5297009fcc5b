"""Whoever looks at a process is told that its certificate expires, while something can still be done about it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.desk import LocalDesk
from sterna.adapters.identity.look import validity_of
from sterna.adapters.identity.own import OwnFiles
from sterna.bootstrap.renewal import watch_of
from sterna.config.bus import BusTls, IdentitySettings
from sterna.domain.errors import NotFound, Unreachable
from sterna.domain.trouble import Trouble
from sterna.domain.trust.identities import Kind
from sterna.domain.trust.joining import JoinAnswer, RenewalRequest
from sterna.joining import Renewal
from tests.unit.adapters.identities import HOST1, Calendar, join


class AwayDesk(LocalDesk):
    away = True

    async def renew(self, request: RenewalRequest, ca: str) -> JoinAnswer:
        if self.away:
            raise Unreachable("https://c1:8774 does not answer", fix="start the controller")
        return await super().renew(request, ca)


class Stopped(Exception):
    """The clock's: one look is enough."""


class OneLook(Calendar):
    async def sleep(self, seconds: float) -> None:
        raise Stopped


@pytest.fixture
def calendar() -> Calendar:
    return OneLook()


@pytest.fixture
def authority(tmp_path: Path, calendar: Calendar) -> Authority:
    return Authority.make(tmp_path / "ca", ["sterna"], calendar)


@pytest.fixture
def own(authority: Authority, tmp_path: Path) -> OwnFiles:
    return join(authority, HOST1, tmp_path / "host")


def told(warning: Trouble | None) -> str:
    assert warning is not None
    return warning.why


def nothing() -> None:
    """Nobody has to be shown it."""


async def look(renewal: Renewal) -> None:
    with pytest.raises(Unreachable):
        await renewal.look()


async def test_a_renewal_that_fails_is_told_two_weeks_before_the_end(
    authority: Authority, own: OwnFiles, calendar: Calendar
) -> None:
    desk = AwayDesk(authority)
    renewal = Renewal(desk, own, calendar, nothing)
    assert renewal.warning() is None, "nothing is known yet"
    begin, end = own.validity()
    calendar.at = begin + timedelta(days=61)
    await look(renewal)
    assert renewal.warning() is None, "a month is left"
    calendar.at = end - timedelta(days=13)
    await look(renewal)
    warning = renewal.warning()
    assert f"expires on {end:%Y-%m-%d %H:%M} UTC" in told(warning)
    assert f"renewing it has failed since {begin + timedelta(days=61):%Y-%m-%d %H:%M} UTC" in told(warning)
    assert "https://c1:8774 does not answer" in told(warning)
    assert warning is not None and warning.fix == "start the controller"
    assert warning.since == (end - timedelta(days=14)).isoformat(timespec="seconds")
    calendar.at = end
    assert "has expired" in told(renewal.warning()), "also between two looks"
    calendar.at = end - timedelta(hours=1)
    desk.away = False
    await renewal.look()
    assert renewal.warning() is None


async def test_a_certificate_that_is_not_in_use_everywhere_is_told_at_once(
    authority: Authority, own: OwnFiles, calendar: Calendar
) -> None:
    reads = list[str]()

    def show() -> None:
        if not reads:
            raise Unreachable("libvirtd has not read its certificates again", fix="restart libvirtd")

    renewal = Renewal(LocalDesk(authority), own, calendar, show)
    first = calendar.at
    await look(renewal)
    calendar.at += timedelta(hours=1)
    await look(renewal)
    warning = renewal.warning()
    assert f"since {first:%Y-%m-%d %H:%M} UTC" in told(warning) and "libvirtd has not read" in told(warning)
    assert warning is not None and warning.fix == "restart libvirtd"
    reads.append("it does")
    await renewal.look()
    assert renewal.warning() is None


def joined_by_files(own: OwnFiles) -> tuple[IdentitySettings, BusTls]:
    return IdentitySettings(enrol="sterna", folder=own.certificate_file.parents[1]), BusTls()


def of_another_ca(own: OwnFiles) -> tuple[IdentitySettings, BusTls]:
    files = {"ca_file": own.ca_file, "cert_file": own.certificate_file, "key_file": own.key_file}
    return IdentitySettings.model_validate({"enrol": "external"} | files), BusTls()


def of_the_bus_alone(own: OwnFiles) -> tuple[IdentitySettings, BusTls]:
    return IdentitySettings(), BusTls(ca_file=own.ca_file, cert_file=own.certificate_file, key_file=own.key_file)


@pytest.mark.parametrize(
    ("settings", "fix"),
    [(joined_by_files, "`server`"), (of_another_ca, "replace"), (of_the_bus_alone, "replace")],
)
async def test_one_that_nothing_here_renews_is_told_as_well(
    settings: Callable[[OwnFiles], tuple[IdentitySettings, BusTls]], fix: str, own: OwnFiles, calendar: Calendar
) -> None:
    shown = list[str]()
    identity, tls = settings(own)
    watch = watch_of(identity, tls, calendar, lambda: shown.append("shown"))
    assert watch is not None
    assert await watch.look() is False
    assert watch.warning() is None and shown == ["shown"], "whoever replaces it need not restart the process"
    calendar.at = own.validity()[1] - timedelta(days=2)
    with capture_logs() as logs, pytest.raises(Stopped):
        await watch.run()
    (line,) = logs
    warning = watch.warning()
    assert "nothing here renews it" in told(warning) and told(warning) == line["why"]
    assert warning is not None and fix in warning.fix == line["fix"]


def test_without_a_certificate_there_is_nothing_to_look_at(calendar: Calendar, tmp_path: Path) -> None:
    assert watch_of(IdentitySettings(), BusTls(), calendar, nothing) is None
    assert watch_of(IdentitySettings(), BusTls(ca_file=tmp_path / "ca.crt"), calendar, nothing) is None


def test_a_controllers_own_is_issued_again(own: OwnFiles, calendar: Calendar) -> None:
    identity, tls = joined_by_files(own)
    watch = watch_of(identity, tls, calendar, nothing, Kind.CONTROLLER)
    assert watch is not None and "sterna ca issue controller" in watch.fix


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.pem"):
        validity_of(tmp_path / "none.pem")
