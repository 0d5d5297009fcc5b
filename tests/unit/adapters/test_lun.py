"""The proof that a LUN opens: what qemu-img is asked, and what it must not be told in its arguments."""

import json
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from sterna.adapters.volumes.lun import prove_lun
from sterna.domain.errors import Permanent, Temporary
from sterna.domain.model import Disk, DiskKind, IscsiSource, SecretRef
from sterna.domain.secrets import Secret

SOURCE = IscsiSource(target="iqn.2026-11.org.sterna:a", lun=1, portal_host="p", initiator="me")
CHAP = SecretRef(kind="iscsi", usage="a", username="fr,ed")
LUKS = SecretRef(kind="volume", usage="b")
WORD = b"open, sesame\xff"


class Keys:
    def __init__(self, *secrets: Secret) -> None:
        self.secrets = list(secrets)

    async def secrets_like(self, refs: Sequence[SecretRef]) -> list[Secret]:
        return self.secrets

    async def secret_value(self, uuid: str) -> bytes:
        return WORD


@pytest.fixture
def qemu_img(tmp_path: Path) -> str:
    """Writes down its arguments, and what the secret's file holds."""
    script = tmp_path / "qemu-img"
    script.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/argv\n"
        f"for word; do case $word in secret,*) cat ${{word##*file=}} > {tmp_path}/read;; esac; done\n"
        + f"echo '{json.dumps({'virtual-size': 100})}'\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def disk(*secrets: SecretRef, capacity: int = 100) -> Disk:
    return Disk(target="vda", kind=DiskKind.ISCSI, iscsi=SOURCE, secrets=secrets, capacity_bytes=capacity)


async def test_a_login_is_in_no_argument(qemu_img: str, tmp_path: Path) -> None:
    keys = Keys(Secret(uuid="u", kind="iscsi", usage="a", has_value=True))
    await prove_lun(disk(CHAP), SOURCE, qemu_img=qemu_img, keyring=keys)  # type: ignore[arg-type]
    arguments = (tmp_path / "argv").read_bytes()
    assert b"user=fr,,ed,password-secret=chap" in arguments
    assert b"sesame" not in arguments
    assert (tmp_path / "read").read_bytes() == WORD


async def test_a_private_password_leaves_the_proof_to_the_guests_own_qemu(qemu_img: str, tmp_path: Path) -> None:
    keys = Keys(Secret(uuid="u", kind="iscsi", usage="a", private=True))
    await prove_lun(disk(CHAP), SOURCE, qemu_img=qemu_img, keyring=keys)  # type: ignore[arg-type]
    assert not (tmp_path / "argv").exists()


async def test_a_missing_password_is_waited_for(qemu_img: str) -> None:
    with pytest.raises(Temporary):
        await prove_lun(disk(CHAP), SOURCE, qemu_img=qemu_img, keyring=Keys())  # type: ignore[arg-type]


async def test_a_luks_header_makes_the_lun_larger_than_the_disk(qemu_img: str, tmp_path: Path) -> None:
    await prove_lun(disk(LUKS, capacity=84), SOURCE, qemu_img=qemu_img, keyring=Keys())  # type: ignore[arg-type]
    assert b"password-secret" not in (tmp_path / "argv").read_bytes()
    for wrong in (disk(LUKS, capacity=101), disk(capacity=84)):
        with pytest.raises(Permanent):
            await prove_lun(wrong, SOURCE, qemu_img=qemu_img)
