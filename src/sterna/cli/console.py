"""The consoles that commands print to. No text from elsewhere can control the terminal or become an emoji."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sterna.domain.plain_text import printable


class PlainConsole(Console):
    """A Rich console. Only our own markup is interpreted; control characters in names and reasons are escaped.

    On a terminal, long lines wrap between words and keep their indent. Elsewhere lines are not wrapped.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Like Rich, after making strings and table cells printable."""
        cleaned = [clean(thing) for thing in objects]
        if not self.is_terminal:
            options.setdefault("soft_wrap", True)
        elif len(cleaned) == 1 and isinstance(cleaned[0], str):
            cleaned = [self._indented(cleaned[0], options.get("markup"))]
        super().print(*cleaned, **options)

    def _indented(self, text: str, markup: bool | None) -> Any:
        indent = len(text) - len(text.lstrip(" "))
        if not indent or "\n" in text:
            return text
        return Padding.indent(self.render_str(text[indent:], markup=markup, emoji=False, highlight=False), indent)


def safe(text: object) -> str:
    """Text from elsewhere, escaped for Rich markup and on one line."""
    return escape(printable(str(text)))


def text_of(markup: str, **options: Any) -> Text:
    """A `Text` made from our own markup."""
    return Text.from_markup(markup, emoji=False, **options)


def clean(thing: Any) -> Any:
    """A string, or a table with string cells, made printable. Other objects are unchanged."""
    if isinstance(thing, str):
        return printable(thing, breaks=True)
    if isinstance(thing, Table):
        for column in thing.columns:
            column._cells = [printable(c) if isinstance(c, str) else c for c in column._cells]
    return thing
