"""Names, reasons and addresses come from guests' owners, other hosts, libvirt: they are shown, and do nothing."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable

import pytest
import structlog
from rich.console import Console
from typer.testing import CliRunner

from sterna.adapters.stderr import log_to_stderr
from sterna.cli import formatting
from sterna.cli.console import PlainConsole
from sterna.cli.main import app
from sterna.cli.watch import LiveBar, PlainLines
from sterna.domain.plain_text import json_safe, printable

EVIL = "a\x1b[2J\x07\x9b31m\x7f\u202eb\r\nfake line\u2028:smile:[red]\ud800"
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\ud800-\udfff]")


def test_what_steers_a_terminal_is_written_out() -> None:
    shown = printable(EVIL)
    assert not STEERING.search(shown) and "\n" not in shown
    assert shown.startswith("a\\x1b[2J\\x07\\x9b31m\\x7f\\u202eb\\x0d\\x0afake line")
    assert printable("Zürich 東京 😀 fd00::a:b") == "Zürich 東京 😀 fd00::a:b"
    assert printable("a\n\tb\x1b", breaks=True) == "a\n\tb\\x1b"
    every = "".join(map(chr, range(0x3000)))
    assert not STEERING.search(printable(every)) and "\n" not in printable(every)


def test_json_means_the_same() -> None:
    document = {"name": EVIL, EVIL: [EVIL]}
    shown = json_safe(json.dumps(document, indent=2, ensure_ascii=False))
    assert not STEERING.search(shown) and json.loads(shown) == document


def _shown(monkeypatch: pytest.MonkeyPatch, show: Callable[[], None]) -> str:
    written = io.StringIO()
    monkeypatch.setattr(formatting, "out", PlainConsole(soft_wrap=True, file=written, width=200))
    show()
    return written.getvalue()


HOST = {
    "name": EVIL,
    "state": EVIL,
    "maintenance": False,
    "cpus": 1,
    "memory_free_bytes": 1,
    "memory_total_bytes": 1,
    "address": "fd00:1:a:b::o:x",
    "libvirt_version": EVIL,
    "qemu_version": EVIL,
    "why": EVIL,
}
VM = {"name": EVIL, "host": EVIL, "state": EVIL, "task_state": EVIL, "vcpus": 1, "memory_bytes": 1, "uuid": EVIL}
LEFT = {"host": EVIL, "kind": EVIL, "subject": EVIL, "why": EVIL, "done": EVIL, "safety": "safe", "repair": EVIL}


def test_tables_and_lines_show_it_and_obey_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def show() -> None:
        formatting.show(formatting.hosts([HOST]))
        formatting.show(formatting.vms([VM]))
        for line in formatting.audit({"leftovers": [LEFT], "clean": False, "silent_hosts": []}):
            formatting.out.print(line)

    shown = _shown(monkeypatch, show)
    assert not STEERING.search(shown)
    assert ":smile:[red]" in shown and "fd00:1:a:b::o:x" in shown  # an address is no emoji
    lines = shown.splitlines()
    assert not [line for line in lines if line.startswith("fake line")]
    assert len(lines) == 2 + 2 + 1


def test_watching_obeys_nothing_either() -> None:
    progress: dict[str, object] = {
        "percent": 1.0,
        "iteration": None,
        "bytes_processed": None,
        "rate_bytes_s": None,
        "eta_s": None,
    }
    progress |= {"dirty_rate_bytes_s": None, "eta_reason": EVIL, "eta_change": EVIL}
    migration: dict[str, object] = {
        "vm_name": EVIL,
        "source": EVIL,
        "destination": EVIL,
        "status": "migrating",
        "reason": EVIL,
    }
    migration["progress"] = progress
    written = io.StringIO()
    PlainLines(PlainConsole(file=written, width=200)).changed(migration, EVIL)

    class Live:
        def update(self, group: object) -> None:
            Console(file=written, width=200).print(group)

    LiveBar(Live()).changed(migration, EVIL)  # type: ignore[arg-type]
    assert not STEERING.search(written.getvalue()) and ":smile:" in written.getvalue()


def test_an_error_obeys_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["hosts", "--api", "http://127.0.0.1:1/\x1b[2J"])
    assert result.exit_code and "\x1b" not in result.output


def test_a_log_that_is_set_up_again_is_as_before() -> None:
    log_to_stderr()
    once = len(structlog.get_config()["processors"])
    log_to_stderr("error")
    assert len(structlog.get_config()["processors"]) == once


def test_nor_do_logs(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    log = structlog.get_logger()
    try:
        raise ValueError(f"no VM {EVIL}")
    except ValueError:
        log.exception(EVIL, vm=EVIL, names=[EVIL], error=EVIL)
    said = capsys.readouterr().err
    assert not STEERING.search(said) and "fake line" in said
    assert not [line for line in said.splitlines()[:1] if line.startswith("fake line")]
