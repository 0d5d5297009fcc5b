"""Changes keys of a TOML file's text. All other lines stay as they are, comments included. Pure."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from sterna.domain.errors import BadRequest

Key = tuple[str, ...]
"""The sections and the name: ("bus", "url"), ("host",)."""
TomlValue = str | bool | int | list[str]
Changes = Mapping[Key, TomlValue]

_HEADER = re.compile(r"\s*(\[{1,2})\s*([A-Za-z0-9_.\- ]+?)\s*\]{1,2}\s*(#.*)?")


def value_of(data: Mapping[str, Any], key: Key) -> Any:
    """What the document has for this key; None where it has nothing."""
    found: Any = data
    for part in key:
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def written(value: TomlValue) -> str:
    """The value as TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(written(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def edited(text: str, changes: Changes) -> str:
    """The text with these values. Raises BadRequest for one that is not TOML, or is written in a form that cannot
    be changed line by line: then somebody has to set the keys."""
    wanted = merged(_parsed(text), changes)
    lines = text.splitlines()
    for key, value in changes.items():
        _set(lines, key, f"{key[-1]} = {written(value)}")
    made = "\n".join(lines).strip("\n") + "\n"
    try:
        right = tomllib.loads(made) == wanted
    except tomllib.TOMLDecodeError:
        right = False
    if not right:
        keys = ", ".join(f"{'.'.join(key)} = {written(value)}" for key, value in changes.items())
        raise BadRequest("this file is written in a form that cannot be changed here", fix=f"set there: {keys}")
    return made


def merged(data: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """The document with these values."""
    made = dict(data)
    for key, value in changes.items():
        place = made
        for part in key[:-1]:
            inner = place.get(part, {})
            place[part] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[part]
        place[key[-1]] = value
    return made


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"this is not TOML: {error}", fix="correct that line") from error


def _sections(lines: list[str]) -> Iterator[tuple[Key | None, int, int]]:
    """Each section's name, its first line and the line behind its last. None: one of a list (`[[name]]`)."""
    name: Key | None = ()
    begin = 0
    for number, line in enumerate(lines):
        if matched := _HEADER.fullmatch(line):
            yield name, begin, number
            parts = tuple(part.strip() for part in matched[2].split("."))
            name, begin = (None if matched[1] == "[[" else parts), number + 1
    yield name, begin, len(lines)


def _set(lines: list[str], key: Key, line: str) -> None:
    """Replace the key's line, or add one to its section, or add the section."""
    *section, name = key
    for found, begin, end in list(_sections(lines)):
        if found != tuple(section):
            continue
        for number in range(begin, end):
            if re.match(rf'\s*"?{re.escape(name)}"?\s*=', lines[number]):
                lines[number] = line + _comment_of(lines[number])
                return
        lines.insert(_behind_last(lines, begin, end), line)
        return
    if lines and lines[-1].strip():
        lines.append("")
    lines.extend((f"[{'.'.join(section)}]", line))


def _behind_last(lines: list[str], begin: int, end: int) -> int:
    """Behind the last key of the section: comments above the next one stay with that. Else behind its comments."""
    keys = [number for number in range(begin, end) if lines[number].strip() and not _is_comment(lines[number])]
    if keys:
        return keys[-1] + 1
    while end > begin and not lines[end - 1].strip():
        end -= 1
    return end


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _comment_of(line: str) -> str:
    """The comment behind a value, with the blanks before it."""
    for place in (number for number, char in enumerate(line) if char == "#"):
        try:
            if tomllib.loads(line[:place]) == tomllib.loads(line):
                return line[len(line[:place].rstrip()) :]
        except tomllib.TOMLDecodeError:
            continue
    return ""
