"""State without a definition: only what is in libvirt's own folders goes."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from sterna.adapters.libvirt.lifecycle import _undefine_flags
from sterna.adapters.libvirt.private_state import ELSEWHERE, StateFolders
from sterna.domain.model import StateFile

UUID = "6f0a3c3e-0000-4000-8000-00000000000a"


@pytest.fixture
def folders(tmp_path: Path) -> StateFolders:
    for name in ("nvram", "swtpm"):
        (tmp_path / name).mkdir()
    return StateFolders(nvram=str(tmp_path / "nvram"), tpm=str(tmp_path / "swtpm"))


def test_nvram_and_the_folder_of_the_tpm_go(folders: StateFolders) -> None:
    nvram, tpm = Path(folders.nvram, "x_VARS.fd"), Path(folders.tpm, UUID)
    nvram.write_text("v")
    (tpm / "tpm2").mkdir(parents=True)
    (tpm / "tpm2" / "state").write_text("t")
    for state in (StateFile(kind="nvram", path=str(nvram)), StateFile(kind="tpm", path=str(tpm))):
        assert folders.remove(UUID, state) == ""
        assert folders.remove(UUID, state) == ""  # repeated
    assert not nvram.exists() and not tpm.exists()


@pytest.mark.parametrize(
    "kind, path", [("nvram", "{nvram}/../x.fd"), ("nvram", "/srv/x.fd"), ("tpm", "{tpm}"), ("tpm", "{tpm}/other")]
)
def test_what_lies_elsewhere_stays(folders: StateFolders, kind: str, path: str) -> None:
    state = StateFile(kind=kind, path=path.format(nvram=folders.nvram, tpm=folders.tpm))
    assert folders.remove(UUID, state) == ELSEWHERE


def test_a_link_is_neither_followed_nor_removed(folders: StateFolders, tmp_path: Path) -> None:
    real, link = tmp_path / "real", Path(folders.nvram, "x_VARS.fd")
    real.write_text("v")
    link.symlink_to(real)
    assert folders.remove(UUID, StateFile(kind="nvram", path=str(link))) == "it is not a regular file"
    assert real.exists() and link.is_symlink()


class Domain:
    """One with a TPM whose state is at a place that its definition names, or at libvirt's own."""

    def __init__(self, source: str) -> None:
        self.source = source

    def XMLDesc(self) -> str:
        return f"""<domain><uuid>{UUID}</uuid><devices><tpm><backend type='emulator'>{self.source}</backend></tpm>
        </devices></domain>"""

    def UUIDString(self) -> str:
        return UUID


@pytest.mark.parametrize(
    ("source", "goes"),
    [
        ("", True),
        ("<source type='dir' path='/var/lib/libvirt/swtpm'/>", False),
        ("<source type='dir' path='/srv/tpm'/>", False),
    ],
)
def test_tpm_state_that_an_operator_has_put_elsewhere_is_not_removed_with_the_definition(
    source: str, goes: bool
) -> None:
    flags = _undefine_flags(Domain(source), ("tpm",))
    assert bool(flags & libvirt.VIR_DOMAIN_UNDEFINE_TPM) is goes
    assert bool(flags & libvirt.VIR_DOMAIN_UNDEFINE_KEEP_TPM) is not goes
