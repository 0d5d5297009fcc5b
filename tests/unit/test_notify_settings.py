"""`[[notify]]` of a controller's settings: what is accepted, whence secrets come, and that they are not shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sterna.bootstrap.notify import check_ca_files
from sterna.config import ControllerSettings, load
from sterna.domain.errors import BadRequest
from sterna.domain.notifications.events import CHOSEN, EventType
from sterna.kit import redaction

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PAGER = f"""
[[notify]]
name = "pager"
url = "https://alerts.example/hooks/s3cret"
secret = "{SECRET}"
"""
BARE = PAGER.replace(f'secret = "{SECRET}"\n', "")


def settings(tmp_path: Path, text: str) -> ControllerSettings:
    path = tmp_path / "controller.toml"
    path.write_text(text)
    return load(ControllerSettings, path)


def test_an_endpoint_gets_everything_for_a_day_unless_told_otherwise(tmp_path: Path) -> None:
    assert settings(tmp_path, "").endpoints == ()
    (pager,) = settings(tmp_path, PAGER).endpoints
    assert pager.chosen_events == CHOSEN and len(pager.keys) == 1 and pager.give_up_after_hours == 24
    text = PAGER + 'events = ["host.*", "migration.failed"]\ngive_up_after_hours = 2\n'
    (pager,) = settings(tmp_path, text).endpoints
    assert pager.chosen_events[0] is EventType.MIGRATION_FAILED and len(pager.chosen_events) == 4


def test_a_secret_may_be_in_the_environment_which_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STERNA_NOTIFY_SECRETS__PAGER", f"{'whsec_' + 'A' * 32}\n")
    for text in (BARE, PAGER):
        assert settings(tmp_path, text).endpoints[0].keys == (bytes(24),)


def test_an_old_secret_signs_as_well(tmp_path: Path) -> None:
    (pager,) = settings(tmp_path, f'{PAGER}old_secret = "whsec_{"A" * 32}"\n').endpoints
    assert pager.keys[1] == bytes(24) != pager.keys[0]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (BARE, r"endpoint pager of \[\[notify\]\] has no secret: .*STERNA_NOTIFY_SECRETS__PAGER"),
        (PAGER + PAGER, "the same name"),
        (PAGER.replace(SECRET, "whsec_é"), r"notify\.0\.secret: .*is not Base64.*openssl rand"),
        (PAGER.replace(SECRET, "s3cret"), r"notify\.0\.secret: .*begins with whsec_"),
        (PAGER.replace(SECRET, "whsec_c2hvcnQ="), r"notify\.0\.secret: .*it has 5 bytes"),
        (PAGER + 'old_secret = "x"\n', r"notify\.0\.old_secret"),
        (PAGER.replace('"pager"', '"Pager Duty"'), r"notify\.0\.name: .*'Pager Duty' is not 1 to 32 small letters"),
        (PAGER.replace("https", "http"), r"notify\.0: .*url: http://alerts\.example would be called without TLS"),
        (PAGER.replace("hooks/", "hooks/\\r\\nX: "), r"notify\.0: .*visible ASCII"),
        (PAGER + 'events = ["migration.faild"]\n', r"notify\.0\.events: .*migration\.failed"),
        (PAGER + "give_up_after_hours = 0\n", r"notify\.0\.give_up_after_hours"),
        (PAGER + "retries = 5\n", r"notify\.0\.retries"),
        (f'[notify_secrets]\nchat = "{SECRET}"\n' + PAGER, "notify_secrets names chat"),
        (f'[notify_secrets]\npager = "{SECRET}x"\n' + PAGER, "secret of pager: .*Base64"),
        ("".join(PAGER.replace("pager", f"pager{n}") for n in range(21)), "notify: .*at most 20"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_is_shown(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(BadRequest, match=named) as caught:
        settings(tmp_path, text)
    for secret in ("MfKQ9r8", "s3cret", "c2hvcnQ"):
        assert secret not in caught.value.message


def test_plain_http_is_for_this_machine_or_asked_for(tmp_path: Path) -> None:
    assert settings(tmp_path, PAGER.replace("https://alerts.example", "http://127.0.0.1:9000")).endpoints
    assert settings(tmp_path, PAGER.replace("https", "http") + "insecure = true\n").endpoints


def test_neither_secret_nor_path_is_shown(tmp_path: Path) -> None:
    found = settings(tmp_path, PAGER)
    for shown in (repr(found), str(found.endpoints), found.model_dump_json()):
        assert "MfKQ9r8" not in shown
    given = {
        "notify": [{"name": "pager", "url": "https://alerts.example/hooks/s3cret", "secret": SECRET}],
        "notify_secrets": {"pager": SECRET},
    }
    redacted = redaction.settings(given, ControllerSettings)
    assert redacted["notify"] == [{"name": "pager", "url": "https://alerts.example/***", "secret": "***"}]
    assert "MfKQ9r8" not in json.dumps(redacted)


def test_a_ca_file_that_is_none_is_an_error_at_the_start(tmp_path: Path) -> None:
    check_ca_files(settings(tmp_path, PAGER))
    for text, why in ((None, "No such file"), ("no certificate", "PEM|no certificate|NO_CERTIFICATE")):
        path = tmp_path / "ca.crt"
        if text is not None:
            path.write_text(text)
        with pytest.raises(BadRequest, match=f"of endpoint pager in .*cannot be used: .*({why})"):
            check_ca_files(settings(tmp_path, f'{PAGER}ca_file = "{path}"\n'))
