"""What is wrong with a page of HTML, as far as its text shows."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
AT_HOME = ("/", "?", "#")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.open: list[str] = []
        self.classes: list[str] = []
        """Of each of `open`."""
        self.ids: Counter[str] = Counter()
        self.wanted: list[str] = []
        """IDs that something refers to."""
        self.headings: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        names = Counter(name for name, _ in attrs)
        self.wrong += [f"<{tag}> has {name} twice" for name, times in names.items() if times > 1]
        self._safe(tag, given)
        self._usable(tag, given)
        if tag not in VOID:
            self.open.append(tag)
            self.classes.append(given.get("class") or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._close()

    def _close(self) -> None:
        self.open.pop()
        self.classes.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()} closes {self.open[-1:]}")
        else:
            self._close()

    def _safe(self, tag: str, given: dict[str, str | None]) -> None:
        """Nothing that the content security policy refuses, and nothing from elsewhere."""
        self.wrong += [f"<{tag} {name}>" for name in given if name.startswith(("on", "hx-on")) or name == "style"]
        if tag == "style" or (tag == "script" and not given.get("src")):
            self.wrong.append(f"<{tag}> in the page")
        for name in ("href", "src", "action", "formaction", "hx-get", "hx-post", "sse-connect"):
            address = given.get(name)
            if address is not None and not (address.startswith(AT_HOME) and not address.startswith("//")):
                self.wrong.append(f"<{tag} {name}={address!r}> leads elsewhere")

    def _usable(self, tag: str, given: dict[str, str | None]) -> None:
        """For those who do not see it, or use no mouse."""
        if found := given.get("id"):
            self.ids[found] += 1
        self.wanted += [v for name in ("for", "aria-describedby", "aria-labelledby") if (v := given.get(name))]
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append(int(tag[1]))
        if tag in ("input", "select", "textarea") and given.get("type") not in ("hidden", "submit"):
            named = "label" in self.open or given.get("aria-label") or given.get("id")
            if not named:
                self.wrong.append(f"<{tag} name={given.get('name')!r}> has no label")
        if tag == "table" and "scroll" not in self.classes[-1:]:
            self.wrong.append("<table> outside of what can be scrolled: the page would, on a phone")
        if tag == "img" and "alt" not in given:
            self.wrong.append("<img> without alt")
        if tag == "th" and "scope" not in given:
            self.wrong.append("<th> without scope")


def wrong_with(text: str) -> list[str]:
    """Every fault of a whole page."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    wrong = reader.wrong + [f"<{tag}> is not closed" for tag in reader.open]
    wrong += [f"id {name!r} {times} times" for name, times in reader.ids.items() if times > 1]
    wrong += [f"nothing has the id {name!r}" for name in reader.wanted if name not in reader.ids]
    if reader.headings[:1] != [1] or reader.headings.count(1) != 1:
        wrong.append("a page has one <h1>, first of all headings")
    pairs = zip(reader.headings, reader.headings[1:], strict=False)
    wrong += [f"<h{after}> follows <h{before}>" for before, after in pairs if after > before + 1]
    if not text.lower().startswith("<!doctype html>"):
        wrong.append("no doctype")
    return wrong
