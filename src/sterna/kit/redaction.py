"""Removes secrets from settings and texts. Pure.

In settings a key is secret by its type (SecretStr) or its name. Keys that this version does not know are left out.
In texts, every secret that is known is replaced wherever it stands, and whatever has the form of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote, unquote

from pydantic import BaseModel, SecretStr

REDACTED = "***"
LEAST = 4
"""Characters of a secret that is looked for in texts: shorter ones are in every other word."""
COMMANDS = ("between", "reload")
"""Settings with a program and its arguments, which may have a password."""
CALLED = ("webhooks", "webhook")
"""Addresses whose path may be a secret of its own."""
HOST_ONLY = "path_is_secret"
"""In `json_schema_extra` of a field that holds an address: the same."""

_SECRET_NAME = re.compile(r"password|passwd|passphrase|secret|token|sha256|credential|private|\bkey\b|_key\b", re.I)
_USERINFO = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s\"'<>]*@")
_PARAMETER = re.compile(
    r"([?&;](?:[^=&;\s\"']*(?:password|passwd|passphrase|secret|token|key|sig)[^=&;\s\"']*)=)[^&;\s\"'<>]*", re.I
)
_HEADER = re.compile(r"\b((?:Bearer|Basic)\s+|X-Auth-Token:\s*)[^\s\"',;]+", re.I)
_JOIN_TOKEN = re.compile(r"\bsterna\d{1,4}\.[\w-]+\.[0-9a-f]{8,}\.[0-9a-f]{8,}")
_API_TOKEN = re.compile(r"\bsterna_[0-9a-f]{12}_[A-Za-z0-9_-]+")
_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_ASSIGNED = re.compile(
    r"\b([\w-]*(?:password|passwd|passphrase|secret)[\w-]*[\"']?\s*[=:]\s*)([\"']?)[^\s\"',;}]+", re.I
)


def is_secret(name: str) -> bool:
    """Does a key of this name hold a secret? The paths of files do not."""
    return bool(_SECRET_NAME.search(name)) and not name.endswith(("_file", "_dir", "_folder"))


def settings(data: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """A settings file's content without its secrets."""
    made = {}
    for name, value in data.items():
        field = model.model_fields.get(name)
        extra = field.json_schema_extra if field is not None else None
        if isinstance(extra, dict) and HOST_ONLY in extra:
            made[name] = _host_only(str(value))
        else:
            made[name] = REDACTED if field is None else _setting(name, value, field.annotation)
    return made


def _setting(name: str, value: Any, annotation: Any) -> Any:
    kinds = list(_classes(annotation))
    inner = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
    if inner is not None:
        many = value if isinstance(value, list) else [value]
        parts = [settings(one, inner) if isinstance(one, Mapping) else REDACTED for one in many]
        return parts if isinstance(value, list) else parts[0]
    if SecretStr in kinds or (is_secret(name) and Path not in kinds):
        return REDACTED
    if name in COMMANDS:
        return [*document(value[:1]), *[REDACTED] * bool(value[1:])] if isinstance(value, list) else document(value)
    if name in CALLED:
        return [_host_only(str(one)) for one in value] if isinstance(value, list) else _host_only(str(value))
    return document(value)


def _classes(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and not get_args(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from _classes(inner)


def secrets_of(data: Any, shown: Any) -> Iterator[str]:
    """What is in the settings and not in what is shown of them: to be looked for in all other texts."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from secrets_of(value, shown.get(name) if isinstance(shown, Mapping) else REDACTED)
    elif isinstance(data, Sequence) and not isinstance(data, str):
        same = isinstance(shown, Sequence) and len(shown) == len(data)
        for number, value in enumerate(data):
            yield from secrets_of(value, shown[number] if same and not isinstance(shown, str) else REDACTED)
    elif isinstance(data, str) and data != shown:
        yield from _passwords(data) if shown != REDACTED else (data,)


def _passwords(url: str) -> Iterator[str]:
    """In an address: behind the user's name, and in its parameters."""
    if matched := re.search(r"://([^\s]*)@", url):
        word = matched[1].partition(":")[2] or matched[1]
        yield from (word, unquote(word))
    for parameter in _PARAMETER.finditer(url):
        yield parameter[0].partition("=")[2]


def _host_only(url: str) -> str:
    matched = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^/\s]*@)?([^/?#\s@]*)", url)
    return f"{matched[1]}{matched[2]}/{REDACTED}" if matched else REDACTED


def document(value: Any) -> Any:
    """A JSON document without secrets: by the names of its keys, and in its texts."""
    if isinstance(value, Mapping):
        return {name: _named(str(name), one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [document(one) for one in value]
    return text(value) if isinstance(value, str) else value


def _named(name: str, value: Any) -> Any:
    if name in CALLED and isinstance(value, str):
        return _host_only(value)
    if isinstance(value, str) and value and is_secret(name):
        return REDACTED
    return document(value)


def text(said: str) -> str:
    """A text without what has the form of a secret."""
    said = _KEY.sub(REDACTED, said)
    said = _API_TOKEN.sub(REDACTED, _JOIN_TOKEN.sub(REDACTED, said))
    said = _USERINFO.sub(rf"\1{REDACTED}@", said)
    said = _PARAMETER.sub(rf"\1{REDACTED}", said)
    said = _HEADER.sub(rf"\1{REDACTED}", said)
    return _ASSIGNED.sub(rf"\1\2{REDACTED}", said)


def without(said: str, secrets: Iterable[str]) -> str:
    """A text without these, however they are written there. The longest first: one may begin with another."""
    forms = {form for secret in secrets if len(secret) >= LEAST for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        said = said.replace(form, REDACTED)
    return said


def _forms(secret: str) -> set[str]:
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }
