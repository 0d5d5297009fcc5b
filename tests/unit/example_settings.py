"""packaging/examples: a settings file for each process, with every key and its default, from the models."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from sterna.config import AgentSettings, ControllerSettings
from tests.unit.markdown import docstrings, paragraphs

FOLDER = Path(__file__).parents[2] / "packaging/examples"
LEFT_OUT = {"test"}
"""Sections that no production host has."""
WIDTH = 100

Json = dict[str, Any]

SET: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    "agent": {
        "host": ("compute1", ""),
        "migration.address": ("10.0.0.11", ""),
    },
    "controller": {
        "database": (
            "sqlite:////var/lib/sterna-controller/controller.db",
            "The unit of the Debian package lets the controller write to this folder.",
        ),
    },
}
"""What the file sets: keys without a default, and what the packages need."""
EXAMPLES: Mapping[str, Any] = {
    "openstack.auth_url": "https://cloud.example:5000/v3",
    "openstack.username": "sterna",
    "openstack.host": "compute1.example",
    "access.keystone.auth_url": "https://cloud.example:5000/v3",
    "access.keystone.username": "sterna",
    "access.tokens.name": "ci",
    "access.tokens.role": "operator",
    "bus.user": "agent",
    "bus.tls.server_name": "bus.example",
    "bus_server.config_file": "/etc/sterna/bus/nats-server.conf",
    "identity.server": "https://10.0.0.1:8774",
    "migration.transport": "tls",
    "migration.link_bytes_s": 1_250_000_000,
    "volumes.initiator": "iqn.2004-10.com.example:compute1",
    "volumes.tgt_socket": "/run/tgtd/socket",
    "compute.may": ["throttle"],
    "notify.name": "pager",
    "notify.url": "https://alerts.example/sterna",
    "notify.secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "notify.old_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
}
"""Values for keys that have no default. Others are by their type."""
_FILES = {
    "ca_file": "ca.crt",
    "cert_file": "own.crt",
    "key_file": "own.key",
    "client_ca_file": "clients.crt",
    "webhook_ca_file": "webhooks.crt",
    "ca_folder": "ca",
}
"""Names below /etc/sterna, by the last part of the key."""
_DIGEST = "0123456789abcdef" * 4


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)} = {toml(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield "#"
        yield from (f"# {line}" for line in textwrap.wrap(paragraph, WIDTH, break_on_hyphens=False))


def _example(place: str, schema: Json) -> Any:
    """For a key that has no default."""
    if place in EXAMPLES:
        return EXAMPLES[place]
    kinds = [schema, *schema.get("anyOf", ())]
    if any(kind.get("format") == "path" for kind in kinds):
        return f"/etc/sterna/{_FILES[place.rpartition('.')[2]]}"
    if any("{64}" in kind.get("pattern", "") for kind in kinds):
        return _DIGEST
    if any(kind.get("type") == "string" for kind in kinds):
        return "secret" if any(kind.get("format") == "password" for kind in kinds) else "RegionOne"
    raise LookupError(f"{place} needs an example")


def _key(process: str, place: str, name: str, schema: Json, about: str) -> Iterator[str]:
    value, why = SET[process].get(place, (None, ""))
    yield from _comment(f"{about} {why}".strip())
    if value is not None:
        yield f"{name} = {toml(value)}"
    elif schema.get("default") is None:
        yield f"#{name} = {toml(_example(place, schema))}"
    else:
        yield f"#{name} = {toml(schema['default'])}"
    yield ""


def _section(process: str, model: type[BaseModel], place: str, *, many: bool = False) -> Iterator[str]:
    schema, about = model.model_json_schema(), docstrings(model)
    if place:
        yield from _comment(paragraphs(model.__doc__ or ""))
        yield from (f"#[[{place}]]" if many else f"[{place}]", "")
    deeper: list[tuple[type[BaseModel], str, bool]] = []
    for name, field in model.model_fields.items():
        inner = f"{place}.{name}" if place else name
        kind = field.annotation
        element = next((a for a in get_args(kind) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if name in LEFT_OUT and not place:
            continue
        if element is not None:
            deeper.append((element, inner, True))
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            deeper.append((kind, inner, False))
        else:
            yield from _key(process, inner, name, schema["properties"][name], about.get(name, ""))
    for kind, inner, several in sorted(deeper, key=lambda one: one[2], reverse=True):
        yield from _section(process, kind, inner, many=several)


def text(process: str, model: type[BaseModel]) -> str:
    """The file of one process."""
    lines = [*_comment(_HEAD.format(process=process)), "", *_section(process, model, "")]
    return "\n".join(lines).rstrip() + "\n"


_HEAD = """\
Settings of `sterna {process}`: /etc/sterna/{process}.toml, owner root, mode 0600.

Each key that may be set. A line `#key = value` shows the default, or an example where nothing is set by default. \
Remove the `#` to set another value. Passwords are better in the environment, as STERNA_SECTION__KEY.

Written by `make reference` from the code of the settings."""


def files() -> dict[Path, str]:
    """Both files, as they must be."""
    return {
        FOLDER / "agent.toml": text("agent", AgentSettings),
        FOLDER / "controller.toml": text("controller", ControllerSettings),
    }
