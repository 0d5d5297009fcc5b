"""No secret leaves a machine: one is planted in every field and in every form, and looked for afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

from sterna.config import AgentSettings, ControllerSettings
from sterna.kit import redaction

PLANTED = "Pl4nted-s3cret"
NAMED = ("password", "token", "secret", "sha256")


def fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    """Each key of the settings, its type, and whether it is in a list of tables."""
    for name, field in model.model_fields.items():
        kinds = list(redaction._classes(field.annotation))
        inner = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        if inner is None:
            yield (*path, name), field.annotation, False
        else:
            many = tuple in (getattr(field.annotation, "__origin__", None), *get_args(field.annotation))
            for where, kind, _ in fields(inner, (*path, name)):
                yield where, kind, many


def planted_in(where: tuple[str, ...], value: Any, *, many: bool) -> dict[str, Any]:
    made: Any = {where[-1]: value}
    if many:
        made = [made]
    for name in reversed(where[:-1]):
        made = {name: made}
    return dict(made)


MODELS = [(model, *one) for model in (AgentSettings, ControllerSettings) for one in fields(model)]
SECRET = [
    one for one in MODELS if SecretStr in redaction._classes(one[2]) or any(word in one[1][-1] for word in NAMED)
]


def ids(found: list[Any]) -> list[str]:
    return [f"{one[0].__name__}.{'.'.join(one[1])}" for one in found]


def test_the_secret_fields_are_found() -> None:
    assert set(ids(SECRET)) == {
        "AgentSettings.bus.password",
        "AgentSettings.openstack.password",
        "AgentSettings.metrics.token_sha256",
        "ControllerSettings.bus.password",
        "ControllerSettings.access.tokens.sha256",
        "ControllerSettings.access.keystone.password",
        "ControllerSettings.fleet.webhook_token",
        "ControllerSettings.metrics.token_sha256",
        "ControllerSettings.notify_secrets",
        "ControllerSettings.notify.secret",
        "ControllerSettings.notify.old_secret",
        "ControllerSettings.traces.headers",
    }


@pytest.mark.parametrize(("model", "where", "kind", "many"), SECRET, ids=ids(SECRET))
def test_a_secret_field_is_not_shown(model: type[BaseModel], where: tuple[str, ...], kind: Any, many: bool) -> None:
    data = planted_in(where, PLANTED, many=many)
    shown = redaction.settings(data, model)
    assert PLANTED not in json.dumps(shown) and redaction.REDACTED in json.dumps(shown)
    assert PLANTED in set(redaction.secrets_of(data, shown))


@pytest.mark.parametrize(("model", "where", "kind", "many"), MODELS, ids=ids(MODELS))
def test_a_password_in_an_address_is_not_shown_wherever_it_is(
    model: type[BaseModel], where: tuple[str, ...], kind: Any, many: bool
) -> None:
    url = f"postgresql+psycopg://sterna:{PLANTED}@db.example/x?password={PLANTED}&sslmode=verify-full"
    for value in (url, [url], {"physnet1": [url]}):
        data = planted_in(where, value, many=many)
        assert PLANTED not in json.dumps(redaction.settings(data, model))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("bus", "pasword"), PLANTED),  # misspelt
        (("opnstack",), {"password": PLANTED}),
        (("fleet", "webhooks"), [f"https://hooks.example/{PLANTED}"]),
        (("fleet", "between"), ["/bin/reboot", "--password", PLANTED]),
        (("bus_server", "reload"), ["sshpass", "-p", PLANTED]),
        (("access", "tokens"), PLANTED),  # of the wrong form
    ],
)
def test_what_is_not_known_or_may_hold_one_is_not_shown(where: tuple[str, ...], value: Any) -> None:
    assert PLANTED not in json.dumps(redaction.settings(planted_in(where, value, many=False), ControllerSettings))


def test_what_is_not_secret_is_shown() -> None:
    data = {
        "database": "postgresql+psycopg://sterna:x@db/sterna?sslmode=verify-full",
        "bus": {"url": "nats://10.0.0.1:4222", "user": "me"},
        "access": {"key_file": "/etc/sterna/api.key", "tokens": [{"name": "ci", "role": "admin", "sha256": "0"}]},
        "fleet": {"webhooks": ["https://jobs.example/sterna"], "between": ["/bin/reboot"]},
    }
    shown = redaction.settings(data, ControllerSettings)
    assert shown["database"] == "postgresql+psycopg://***@db/sterna?sslmode=verify-full"
    assert shown["bus"] == data["bus"] and shown["access"]["key_file"] == "/etc/sterna/api.key"
    assert shown["access"]["tokens"] == [{"name": "ci", "role": "admin", "sha256": "***"}]
    assert shown["fleet"] == {"webhooks": ["https://jobs.example/***"], "between": ["/bin/reboot"]}


@pytest.mark.parametrize(
    "said",
    [
        f"connecting to postgresql://sterna:{PLANTED}@db/x failed",
        f"nats://u:{PLANTED}/with@slash@host:4222",
        f"GET https://x/y?a=1&api_key={PLANTED}&b=2",
        f"Authorization: Bearer {PLANTED}",
        f"X-Auth-Token: {PLANTED}",
        f"password={PLANTED}",
        f'{{"password": "{PLANTED}"}}',
        f"sterna_0123456789ab_{PLANTED}",
        f"-----BEGIN EC PRIVATE KEY-----\n{PLANTED}\n-----END EC PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED} cut off",
    ],
)
def test_a_text_is_shown_without_what_has_the_form_of_a_secret(said: str) -> None:
    assert PLANTED not in redaction.text(said)


def test_a_join_token_is_not_shown() -> None:
    word = f"sterna1.host1.{'ab' * 32}.{'cd' * 16}"
    assert "cd" * 8 not in redaction.text(f"typed {word} here")


def test_other_texts_stay_as_they_are() -> None:
    said = "web1: host1 -> host2, https://10.0.0.1:8774/v1/hosts?limit=50, 52:54:00:00:00:01, user@host, key: value"
    assert redaction.text(said) == said


def test_a_known_secret_is_replaced_in_every_form() -> None:
    secret = 'p"a/s s\\%'
    said = f"{secret} {json.dumps(secret)} p%22a%2Fs%20s%5C%25 p%22a/s%20s%5C%25"
    assert redaction.without(said, [secret, "p"]) == '*** "***" *** ***'
    assert redaction.without("abcdef abcd", ["abcd", "abcdef"]) == "*** ***"
