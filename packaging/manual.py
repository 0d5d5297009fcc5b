"""The sources of the manual pages, as Markdown, from the pages of docs/reference. `lowdown` makes pages of them.

python3 packaging/manual.py docs/reference FOLDER
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_CELL = re.compile(r"(?<!\\)\|")
_FILES = {
    "`/etc/sterna/agent.toml`, `/etc/sterna/controller.toml`": "Settings: sterna-agent.toml(5), "
    "sterna-controller.toml(5).",
    "`/usr/share/doc/sterna-agent/examples/agent.toml`, "
    "`/usr/share/doc/sterna-controller/examples/controller.toml`": "Every key, with its default.",
    "`/etc/sterna/identity`": "Key and certificate of the process of this machine.",
    "`/etc/sterna/ca`": "Sterna's own CA, where it is on this machine.",
    "`/var/lib/sterna`": "The journal of the agent.",
    "`/var/lib/sterna-controller`": "The controller's database, where it is SQLite.",
    "`/run/sterna/api.sock`": "The controller's Unix socket.",
    "`~/.config/sterna/cli.toml`, `~/.config/sterna/token`": "Address of the API, and the token for it.",
}


class Section(NamedTuple):
    """What stands under a heading."""

    title: str
    text: str


def sections(page: str, mark: str = "## ") -> Iterator[Section]:
    """The parts of a page that begin with such a heading. What stands before the first has no title."""
    for number, part in enumerate(re.split(rf"^{mark}", page, flags=re.MULTILINE)):
        title, _, text = part.partition("\n") if number else ("", "", part)
        yield Section(title.strip(), text.strip())


def cells(row: str) -> list[str]:
    """Of a row of a table."""
    return [cell.strip().replace("\\|", "|") for cell in _CELL.split(row.strip())[1:-1]]


def _settings(key: str, kind: str, default: str, about: str) -> tuple[str, str]:
    ends = {"required": "Required.", "not set": ""}.get(default, f"Default: {default}.")
    return f"{key} ({kind})", f"{about} {ends}".strip()


def listed(lines: Iterable[str]) -> Iterator[str]:
    """Tables as lists: of options, arguments, codes or settings. Terminals are too narrow for tables."""
    head = True
    for line in lines:
        if not line.startswith("|"):
            head = True
            yield line
            continue
        row = cells(line)
        if head or set(row[0]) <= set("-: "):
            head = False
            continue
        name, about = _settings(*row) if len(row) == 4 else (" ".join(row[:-1]), row[-1])
        yield from (name, f":   {about or '-'}", "")


def plain(text: str) -> str:
    """Without links, comments and tables."""
    text = re.sub(r"<!--.*?-->\n*", "", _LINK.sub(r"\1", text), flags=re.DOTALL)
    return "\n".join(listed(text.splitlines())).strip()


def _page(*parts: tuple[str, str]) -> str:
    return "\n\n".join(f"# {title}\n\n{text}" for title, text in parts if text) + "\n"


def _commands(found: Iterable[Section]) -> str:
    return "\n\n".join(f"## {one.title}\n\n{plain(one.text)}" for one in found)


def command(cli: str, exit_codes: str) -> str:
    """sterna(1)."""
    intro, *found = sections(cli)
    about = plain(intro.text.partition("-->")[2])
    shown = [one for one in found if not one.title.startswith("sterna lab")]
    return _page(
        ("NAME", "sterna - live migration of KVM virtual machines"),
        ("SYNOPSIS", "`sterna` *COMMAND* [*OPTIONS*] [*ARGUMENTS*]"),
        ("DESCRIPTION", about),
        ("COMMANDS", _commands(shown)),
        ("EXIT STATUS", plain(exit_codes.partition("\n")[2])),
        ("FILES", "\n\n".join(f"{name}\n:   {what}" for name, what in _FILES.items())),
        ("SEE ALSO", "sterna-agent(8), sterna-controller(8), sterna-agent.toml(5), sterna-controller.toml(5)"),
    )


def process(cli: str, name: str) -> str:
    """sterna-agent(8) and sterna-controller(8)."""
    found = [one for one in sections(cli) if re.fullmatch(rf"sterna {name}( .*)?", one.title)]
    about = {"agent": "agent of a compute host", "controller": "controller of a fleet"}[name]
    text = (
        f"The process runs as the service `sterna-{name}`. It starts where `/etc/sterna/{name}.toml` is:\n\n"
        f"```\nsystemctl enable --now sterna-{name}\nsystemctl status sterna-{name}\n"
        f"journalctl -u sterna-{name}\n```"
    )
    return _page(
        ("NAME", f"sterna-{name} - {about}, for live migration of KVM virtual machines"),
        ("SYNOPSIS", f"`sterna {name}` `--config` *FILE*"),
        ("DESCRIPTION", text),
        ("COMMANDS", _commands(found)),
        ("SEE ALSO", f"sterna(1), sterna-{name}.toml(5)"),
    )


def settings(configuration: str, name: str) -> str:
    """sterna-agent.toml(5) and sterna-controller.toml(5)."""
    found = re.search(rf"<!-- {name}: .*?-->(.*?)<!-- end of {name} -->", configuration, flags=re.DOTALL)
    if found is None:
        raise SystemExit(f"configuration.md has no settings of the {name}")
    tables = [one for one in sections(found[1], "### ") if one.title]
    parts = (f"## {one.title.partition(': ')[2].replace('`', '')}\n\n{plain(one.text)}" for one in tables)
    text = (
        f"The settings of `sterna {name}`, in TOML. The service reads `/etc/sterna/{name}.toml`.\n\n"
        "A variable of the environment overrides a key: `STERNA_` and the key, sections joined by two underscores "
        "(`STERNA_BUS__URL`). A key that is not known is an error.\n\n"
        f"`/usr/share/doc/sterna-{name}/examples/{name}.toml` has every key, with its default."
    )
    return _page(
        ("NAME", f"sterna-{name}.toml - settings of the {name} of Sterna"),
        ("DESCRIPTION", text),
        ("KEYS", "\n\n".join(parts)),
        ("SEE ALSO", f"sterna(1), sterna-{name}(8)"),
    )


def pages(reference: Path) -> dict[str, str]:
    """Each page by its name."""
    read = {name: (reference / f"{name}.md").read_text("utf-8") for name in ("cli", "configuration", "exit-codes")}
    made = {"sterna.1": command(read["cli"], read["exit-codes"])}
    for name in ("agent", "controller"):
        made[f"sterna-{name}.8"] = process(read["cli"], name)
        made[f"sterna-{name}.toml.5"] = settings(read["configuration"], name)
    return made


if __name__ == "__main__":
    for file, content in pages(Path(sys.argv[1])).items():
        Path(sys.argv[2], f"{file}.md").write_text(content, encoding="utf-8")
