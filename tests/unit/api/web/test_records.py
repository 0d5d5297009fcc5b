"""The pages of the audit log, of leftovers, and of accuracy."""

from __future__ import annotations

import pytest

from sterna.api.web.pages import TEMPLATES
from sterna.controller.intents.plan_migration import Forecasting
from sterna.domain.experience import Accuracy
from tests.unit.api.web.browser import HOSTILE, Browser
from tests.unit.controller.conftest import World

LEFT = {"kind": "tap", "host": "a", "subject": HOSTILE, "why": "no VM has it", "safety": "safe", "repair": "remove"}


async def test_the_log_says_who_asked_for_what(admin: Browser, operator: Browser) -> None:
    page = await operator.get("/hosts/b")
    await operator.send(page, "/hosts/b/close", reason=HOSTILE)
    log = await admin.get("/log?action=maintenance")
    assert "token:operator operator 127.0.0.1 maintenance b reason:" in log.text
    assert HOSTILE[:-1] in log.text and "<script>alert" not in log.answer.text
    assert "No line matches" in (await admin.get("/log?actor=nobody")).text


async def test_the_log_has_pages(admin: Browser, operator: Browser) -> None:
    for _ in range(51):
        page = await operator.get("/hosts/b")
        await operator.send(page, next(path for path in page.forms() if path.startswith("/hosts/")))
    first = await admin.get("/log?action=maintenance")
    (more,) = (link for link in first.links() if "cursor=" in link)
    assert "maintenance" in more and (await admin.get(f"/log{more}")).text.count("token:operator") == 1


async def test_the_log_is_for_administrators(operator: Browser) -> None:
    assert "/log" not in (await operator.get("/")).links()
    await operator.get("/log", 403)


async def test_leftovers_are_shown_with_evidence_and_removed_by_an_administrator(
    operator: Browser, admin: Browser, world: World
) -> None:
    world.a.leftovers = [LEFT]
    form = await operator.get("/audit")
    found = await operator.send(form, "/audit", 200)
    assert "There are leftovers" in found.text and "no VM has it" in found.text
    assert HOSTILE[:-1] in found.text and "<script>alert" not in found.answer.text
    assert "repair" not in found.forms()["/audit"]
    await operator.post("/audit", found.forms()["/audit"] | {"repair": "yes"}, 403)
    assert world.a.leftovers
    found = await admin.send(await admin.get("/audit"), "/audit", 200, host="a")
    assert found.forms()["/audit"]["repair"] == ["yes"] and found.forms()["/audit"]["host"] == ["a"]
    repaired = await admin.send(found, "/audit", 200)
    assert "All of them were removed" in repaired.text and not world.a.leftovers


async def test_no_leftovers(viewer: Browser) -> None:
    found = await viewer.send(await viewer.get("/audit"), "/audit", 200)
    assert "There are no leftovers. 3 hosts answered." in found.text


async def test_accuracy(viewer: Browser, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "There are none yet" in (await viewer.get("/accuracy")).text
    some, none = (
        Accuracy(compared=4, within_10_percent=0.5, within_25_percent=1.0, median_error=0.08),
        Accuracy(compared=0),
    )

    async def accuracy() -> Forecasting:
        return Forecasting(time=some, downtime=none, bytes_sent=some)

    monkeypatch.setattr(world.controller, "accuracy", accuracy)
    page = await viewer.get("/accuracy")
    assert "total time 4 50 % 100 % 8 % downtime 0 - - - bytes sent 4" in page.text


async def test_what_was_asked_for_is_in_words(admin: Browser) -> None:
    await admin.send(await admin.get("/hosts/b"), "/hosts/b/close", reason="new fans")
    wanted = {"hosts": ["a", "b"], "even_if_late": True, "may": None}
    assert TEMPLATES.from_string("{{ x | plain }}").render(x=wanted) == "hosts: a, b, even_if_late: yes, may: -"
    assert "reason: new fans" in (await admin.get("/log")).text
