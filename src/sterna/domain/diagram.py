"""A migration's run as a PlantUML sequence diagram. Pure text in, text out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sterna.domain.journal import Migration
from sterna.domain.sequence import Arrow, Divider, Lifeline, Note, story
from sterna.domain.timeline import Item


def _plain(text: str) -> str:
    """One line of text from outside that PlantUML takes literally: no markup, no directives."""
    line = re.sub(r"[\\<>~%$\"]", lambda m: f"<U+{ord(m.group()):04X}>", text)
    return re.sub(r"([*/_\-^])(?=\1)", r"~\1", line)


def _participant(one: Lifeline) -> str:
    if not one.host:
        return f'participant "{_plain(one.name)}" as {one.id}'
    return f'participant "{_plain(one.name)}\\n{_plain(one.host)}" as {one.id}'


def _line(event: Divider | Arrow | Note) -> str:
    if isinstance(event, Divider):
        return f"== {event.text} =="
    text = _plain(event.text)
    if isinstance(event, Note):
        if event.status:
            text = f"status **{_plain(event.status)}**" + (f"\\n{text}" if text else "")
        return f"note over {event.over}{' #FFCCCC' if event.failed else ''} : {text}"
    line, head = "--" if event.returns else "-", ">>" if event.casts else ">"
    arrow = f"{line}[#red]{head}" if event.failed else f"{line}{head}"
    text = f"<color:red>{text}</color>" if event.failed else text
    return f"{event.sender} {arrow} {event.receiver} : {text}"


def draw(migration: Migration, timeline: Sequence[Item]) -> str:
    """PlantUML source of one migration's run, `@startuml` to `@enduml`."""
    told = story(migration, timeline)
    route = f"{_plain(told.vm)} from {_plain(told.source)} to {_plain(told.destination)}"
    return "\n".join(
        [
            "@startuml",
            f"title {route}\\nmigration {_plain(told.migration)}",
            *map(_participant, told.lifelines),
            *map(_line, told.events),
            "@enduml\n",
        ]
    )
