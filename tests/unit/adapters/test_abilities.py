"""What a host's QEMU is asked. Its schema is some 200 KB: it is not out when the next command is read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from lxml import etree

from sterna.adapters.libvirt import abilities
from sterna.domain.model import Abilities

NEW = abilities.Versions(10_001_000, 8_000_000)
ACL = 'cgroup_device_acl = [\n  "/dev/null", {more}\n  "/dev/zero"\n]\n'
SCHEMA = '[{"meta-type": "enum", "values": ["none", "zlib", "zstd"]}]'
"""The enum that tells; a QEMU without zstd lacks it."""


def emulator(folder: Path, *, says: str = SCHEMA, first: str = "") -> Path:
    """A QEMU that answers what it was asked, unless the next command is to quit; `first`: what it does before."""
    path = folder / "qemu"
    path.write_text(f"""#!{sys.executable}
import select, sys
print('{{"QMP": {{}}}}', flush=True)
{first}
for line in sys.stdin:
    if "capabilities" in line:
        print('{{"return": {{}}}}', flush=True)
    elif "schema" in line:
        if any("quit" in more for more in iter(lambda: sys.stdin.readline() if select.select(
                [sys.stdin], [], [], 0.2)[0] else "", "")):
            sys.exit()
        print('{{"return": {says}}}', flush=True)
""")
    path.chmod(0o755)
    return path


async def zstd(path: Path) -> bool | None:
    told = etree.fromstring(
        f"<capabilities><guest><arch name='x86_64'><emulator>{path}</emulator></arch></guest></capabilities>"
    )
    return (await abilities.read(told, NEW, privileged=False, settings=Abilities())).zstd


async def test_qemu_is_not_told_to_quit_before_it_has_answered(tmp_path):
    assert await zstd(emulator(tmp_path)) is True


async def test_a_qemu_without_zstd_is_known(tmp_path):
    assert await zstd(emulator(tmp_path, says='[{"meta-type": "enum", "values": ["none", "zlib"]}]')) is False


async def test_a_qemu_that_gave_no_answer_is_asked_again(tmp_path):
    once = str(tmp_path / "once")
    fails = f"import os\nif not os.path.exists({once!r}):\n    open({once!r}, 'w')\n    sys.exit()"
    path = emulator(tmp_path, first=fails)
    assert await zstd(path) is None
    assert await zstd(path) is True


async def test_a_qemu_that_hangs_is_waited_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr(abilities, "_ASK_QEMU_S", 0.5)
    asked = tmp_path / "asked"
    path = emulator(tmp_path, first=f"open({str(asked)!r}, 'a').write('.')\nimport time; time.sleep(600)")
    assert [await zstd(path), await zstd(path)] == [None, None]
    assert asked.read_text() == "."


async def test_a_host_without_an_emulator_says_nothing(tmp_path):
    assert await zstd(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("versions", "conf", "opens"),
    [
        (NEW, "", True),
        (abilities.Versions(10_000_000, 9_000_000), "", False),
        (abilities.Versions(11_003_000, 7_002_000), "", False),
        (NEW, ACL.format(more='"/dev/kvm",'), False),
        (NEW, ACL.format(more='"/dev/userfaultfd",'), True),
        (NEW, "#" + ACL.format(more="").replace("\n", "\n#"), True),
    ],
)
def test_the_device_that_handles_page_faults(versions: abilities.Versions, conf: str, opens: bool) -> None:
    assert abilities.opens_device(versions, conf) is opens
