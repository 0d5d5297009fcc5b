"""Writes the pages of docs/reference that are made from the code: `make reference`.

`test_reference_pages.py` fails while a page is not up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import typer
from pydantic import BaseModel
from pydantic_settings import BaseSettings

import sterna.__main__  # noqa: F401 - its commands join those of the CLI
from sterna.api.app import create_app
from sterna.cli.main import app
from sterna.config import AgentSettings, ControllerSettings
from sterna.controller.controller import Controller
from sterna.lab.cli import app as lab_app
from sterna.migration.rollback_order import tables
from tests.corpus import corpus_page
from tests.unit import (
    doctor_page,
    example_settings,
    hostile_page,
    licences_page,
    metrics_page,
    notifications_page,
    schema_page,
)
from tests.unit.markdown import MADE, cell, docstrings, paragraphs
from tests.unit.refusals_page import refusals

REFERENCE = Path(__file__).parents[2] / "docs/reference"

Json = dict[str, Any]


# The command line


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    if command.invoke_without_command:
        yield path, command
    for name in sorted(inner):
        yield from _commands(inner[name], f"{path} {name}")


def _value(param: Any) -> str:
    return str(param.metavar or param.name.replace("_", "-").upper()).strip("[]")


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" `{_value(option)}`"
    about = [option.help or ""]
    if option.required:
        about.append("Required.")
    if option.is_flag and option.secondary_opts and isinstance(option.default, bool):
        about.append(f"Default: `{(option.opts if option.default else option.secondary_opts)[0]}`.")
    elif not option.is_flag and option.default not in (None, "") and not callable(option.default):
        about.append(f"Default: `{option.default}`.")
    if option.envvar:
        about.append(f"Environment: `{option.envvar}`.")
    return f"| {names}{value} | {cell(' '.join(about))} |"


def _usage(path: str, params: Sequence[Any]) -> str:
    parts = [path, "[OPTIONS]"]
    for param in params:
        if param.param_type_name == "argument":
            parts.append(_value(param) if param.required else f"[{_value(param)}]")
            parts[-1] += "..." if param.nargs == -1 else ""
        elif param.required:
            parts.append(f"{param.opts[0]} {_value(param)}")
    return " ".join(parts)


def _command(path: str, command: Any) -> str:
    params = [p for p in command.params if p.name != "help"]
    lines = [f"## {path}", "", paragraphs(command.help or ""), "", "```text", _usage(path, params), "```"]
    arguments = [p for p in params if p.param_type_name == "argument"]
    options = [p for p in params if p.param_type_name == "option"]
    if arguments:
        lines += ["", "| Argument | What it is |", "|---|---|"]
        lines += [f"| `{_value(a)}` | {cell(getattr(a, 'help', None) or '')} |" for a in arguments]
    if options:
        lines += ["", "| Option | What it does |", "|---|---|", *(_option(option) for option in options)]
    return "\n".join(lines)


def cli() -> str:
    """The commands, as the Typer application has them."""
    parts = ["# Command line", MADE, CLI_INTRODUCTION]
    root, lab = typer.main.get_command(app), typer.main.get_command(lab_app)
    commands = [*_commands(root, "sterna"), *_commands(lab, "sterna lab")]
    parts += [_command(path, command) for path, command in commands]
    return "\n\n".join(parts) + "\n"


CLI_INTRODUCTION = """\
`sterna COMMAND --help` prints the same. Commands that use the controller take its address from the first of these:

1. `--api`
2. the variable `STERNA_API`
3. a lab in the current folder (`.lab/lab.json`)
4. `api` in `~/.config/sterna/cli.toml`
5. `unix:/run/sterna/api.sock`

Each of 1, 2 and 4 can contain [several addresses](../how-to/postgres.md#4-let-clients-reach-them), separated by
commas.

After `sterna --install-completion`, the shell completes commands, options, names of VMs and hosts, and IDs of
migrations and operations. It asks the controller for them, for 1.5 s at most. It leaves out names with characters
that are special in a shell.

Durations are written as `300ms`, `90s`, `10m` or `2h`. Rates are written as `200MiB/s`, `1GB/s` or `10Gbit/s`.
A plain number is MiB/s. See also [Exit codes](exit-codes.md)."""


# The REST API


NOT_OURS = {"HTTPValidationError": "Problem", "ValidationError": "Problem"}
"""FastAPI documents its own errors; every error of this API is a Problem."""
WHEN = {"Successful Response": "Success", "Validation Error": "Unprocessable Entity"}


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        name = NOT_OURS.get(name, name)
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{one}`" if one else '`""`' for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "prefixItems" in schema:
        return "list"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return str(schema.get("format") or schema.get("type", "any"))


def _limits(schema: Json) -> str:
    parts = [schema, *schema.get("anyOf", ())]
    words = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than", "pattern": "matches"}
    words |= {"maxLength": "characters, at most", "maxItems": "items, at most"}
    found = [f"{word} {_plain(part[key])}" for part in parts for key, word in words.items() if key in part]
    return f" ({'; '.join(found)})" if found else ""


def _plain(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _models(kind: type[BaseModel] = BaseModel) -> Iterator[type[BaseModel]]:
    for one in kind.__subclasses__():
        if one.__module__.startswith("sterna."):
            yield one
        yield from _models(one)


def _fields(schema: Json, more: Mapping[str, str]) -> list[str]:
    lines = ["| Field | Type | What it is |", "|---|---|---|"]
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        default = field.get("default")
        about = field.get("description") or more.get(name, "")
        if name not in required and default not in (None, "", [], {}):
            about += f" Default: `{json.dumps(default)}`."
        star = "" if name in required else ", optional"
        lines.append(f"| `{name}` | {cell(_type(field) + _limits(field))}{star} | {cell(about)} |")
    return lines


def _body(operation: Json) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    return next((_type(body["schema"]) for body in content.values()), "")


def _answers(operation: Json) -> Iterator[str]:
    for status, answer in sorted(operation["responses"].items()):
        kinds = [
            f"{_type(c['schema'])}" if c.get("schema") else kind for kind, c in answer.get("content", {}).items()
        ]
        when = WHEN.get(answer["description"], answer["description"])
        yield f"| {status} | {', '.join(kinds)} | {cell(when)} |"


def _operation(method: str, path: str, operation: Json) -> str:
    about = paragraphs(operation.get("description", ""))
    role = operation.get("x-role")
    needs = f"Needs the role `{role}`." if role else "Needs no authentication."
    lines = [f"### {method.upper()} {path}", "", f"**{operation['summary'].rstrip('.?')}.** {about} {needs}"]
    parameters = operation.get("parameters", ())
    if parameters:
        lines += ["", "| Parameter | In | Type | What it is |", "|---|---|---|---|"]
        lines += [
            f"| `{p['name']}` | {p['in']} | {cell(_type(p['schema']) + _limits(p['schema']))} "
            f"| {cell(p.get('description', ''))} |"
            for p in parameters
        ]
    if body := _body(operation):
        lines += ["", f"Request body: {body}"]
    return "\n".join([*lines, "", "| Status | Body | When |", "|---|---|---|", *_answers(operation)])


def rest() -> str:
    """The operations and schemas, as the FastAPI application's OpenAPI document has them."""
    document = create_app(cast(Controller, None)).openapi()
    parts = ["# REST API", MADE, REST_INTRODUCTION, "## Operations"]
    for path, methods in document["paths"].items():
        parts += [_operation(method, path, operation) for method, operation in methods.items()]
    parts.append("## Schemas")
    models = {model.__name__: model for model in _models()}
    for name, schema in sorted(document["components"]["schemas"].items()):
        if name in NOT_OURS:
            continue
        about = paragraphs(schema.get("description", ""))
        more = docstrings(models[name]) if name in models else {}
        body = "\n".join(_fields(schema, more)) if "properties" in schema else _type(schema)
        parts.append("\n\n".join(part for part in (f"### {name}", about, body) if part))
    return "\n\n".join(parts) + "\n"


REST_INTRODUCTION = """\
A running controller serves the same document at `/openapi.json`, and as a page at `/docs`. The page loads nothing
from other sites and runs no script. A browser asks for a name and a password: use a token as the password, and
any name.

Requests need a token: `Authorization: Bearer TOKEN`, or HTTP basic authentication with the token as the password.
On the controller's Unix socket no token is needed if [`[access]`](configuration.md) gives the user a role. The
roles are `viewer`, `operator` and `admin`; each role includes the permissions of the previous one. A token with
the role `neutron` may only post Neutron's events. If `[access.keystone]` is set, a Keystone token in
`X-Auth-Token` is also accepted.

Every response contains the ID of its request in `X-Request-Id`. A body may have at most 1 MiB, and 64 KiB without
a known token. Each user or token may have at most 64 event streams.

`/v1/ca`, `/v1/join` and `/v1/renewals` are for hosts that [join](../how-to/enrol.md). They need no token if the
controller has the CA (`ca_folder`); otherwise they are disabled.

Sizes are in bytes and rates in bytes/s. Durations are in ms or s, according to the name of the field. A value
that was not observed is `null`, never zero. Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem
details with every reason at once. A request without a known token gets 401. A request whose role does not permit
it gets 403, and the reason names the role that is needed."""


# The settings


def _setting_default(field: Json, required: bool) -> str:
    default = field.get("default")
    if required:
        return "required"
    return "not set" if default is None else f"`{json.dumps(default)}`"


def _inlined(field: Json, known: Mapping[str, Json]) -> Json:
    """The field with what it refers to in its place."""
    if "anyOf" in field:
        return field | {"anyOf": [_inlined(one, known) for one in field["anyOf"]]}
    if isinstance(inner := field.get("additionalProperties"), dict):
        return field | {"additionalProperties": _inlined(inner, known)}
    return known[field["$ref"].rpartition("/")[2]] if "$ref" in field else field


def _sections(model: type[BaseModel], process: str, name: str) -> Iterator[str]:
    schema, about = model.model_json_schema(), docstrings(model)
    lines = ["| Key | Type | Default | What it is |", "|---|---|---|---|"]
    deeper = []
    for key, info in model.model_fields.items():
        kind, inner = info.annotation, f"{name}.{key}" if name else key
        many = next((a for a in get_args(kind) if isinstance(a, type) and issubclass(a, BaseModel)), None)
        if many is not None:
            deeper.append((many, f"[{inner}]"))
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            deeper.append((kind, inner))
            continue
        field = _inlined(schema["properties"][key], schema.get("$defs", {}))
        shown = _type(field).replace(" or null", "") + _limits(field)
        default = _setting_default(field, key in schema.get("required", ()))
        lines.append(f"| `{key}` | {cell(shown)} | {cell(default)} | {cell(about.get(key, ''))} |")
    title = f"### {process}: `[{name}]`" if name else f"### {process}: top level"
    intro = "" if issubclass(model, BaseSettings) else paragraphs(model.__doc__ or "")
    yield "\n\n".join(part for part in (title, intro, "\n".join(lines)) if part)
    for kind, path in deeper:
        yield from _sections(kind, process, path)


def settings(model: type[BaseModel]) -> str:
    """The keys of one process's file."""
    return "\n\n".join(_sections(model, model.__name__.removesuffix("Settings"), ""))


def configuration(page: str) -> str:
    """The page with its tables."""
    for name, model in (("agent", AgentSettings), ("controller", ControllerSettings)):
        between = rf"(<!-- {name}: .*? -->\n).*?(<!-- end of {name} -->)"
        found = re.search(between, page, flags=re.DOTALL)
        if found is None:
            raise ValueError(f"configuration.md has no place for the settings of the {name}")
        page = page[: found.start()] + f"{found[1]}\n{settings(model)}\n\n{found[2]}" + page[found.end() :]
    return page


def rollback_order() -> str:
    """What is undone, in which order, for every step that may fail."""
    text = ["# The order of a rollback", "", MADE, "", *_ROLLBACK_ORDER]
    for host, rows in tables():
        text += ["", f"## On the {host}", "", "| Failed in | Done, in this order |", "|---|---|"]
        text += [f"| {failed} | {', '.join(steps)} |" for failed, steps in rows]
    return "\n".join(text) + "\n"


_ROLLBACK_ORDER = """
A migration that fails before the pivot is rolled back. Each step that has started is undone, the last one first.
A step counts as started as soon as its intent is in the journal. The letters and numbers in brackets are rows of
the [protocol](protocol.md).

The source first asks both hypervisors. The destination undoes its part at the source's request: first with a call
(R3), so that it disconnects the volumes at once, then with a message that waits until the destination is up (R4).
If the call does not get through, the message undoes everything in this order: the configuration, the ports, the
volumes, the files.

`python -m sterna.migration.rollback_order` prints the same.
""".strip().splitlines()


def pages() -> dict[Path, str]:
    """Every page that is made from the code, as it must be."""
    settings_page = REFERENCE / "configuration.md"
    return {
        REFERENCE / "cli.md": cli(),
        REFERENCE / "rest.md": rest(),
        REFERENCE / "rollback-order.md": rollback_order(),
        REFERENCE / "refusals.md": refusals(),
        REFERENCE / "hostile-agent.md": hostile_page.page(),
        REFERENCE / "licences.md": licences_page.page(),
        REFERENCE / "metrics.md": metrics_page.page(),
        REFERENCE / "notifications.md": notifications_page.page(),
        REFERENCE / "doctor.md": doctor_page.page(),
        REFERENCE / "corpus.md": corpus_page.page(),
        settings_page: configuration(settings_page.read_text(encoding="utf-8")),
        schema_page.PAGE: schema_page.written(schema_page.PAGE.read_text(encoding="utf-8")),
        **example_settings.files(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
