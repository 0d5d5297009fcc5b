"""Proof that a LUN can be reached: QEMU's own initiator logs in and reads its size, as the guest's QEMU will."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from sterna.domain.errors import Permanent, Temporary
from sterna.domain.model import Disk, IscsiSource
from sterna.kit.command import Finished, in_memory, run
from sterna.ports.secrets import Keyring

_PROOF_S = 10.0
"""A login and one READ CAPACITY; libiscsi itself would try for ever."""


@dataclass(frozen=True)
class Login:
    """What CHAP wants."""

    username: str
    password: bytes = field(repr=False)


async def login_of(disk: Disk, keyring: Keyring | None) -> Login | None:
    """The disk's CHAP login by this host's libvirt; None where it needs none, or the secret may not be read. Raises
    Temporary where the secret is not here, Unreachable, Permanent.
    """
    ref = disk.chap
    if ref is None or keyring is None:
        return None
    found = await keyring.secrets_like((ref,))
    if not found:
        raise Temporary(f"disk {disk.target}: this host has no secret {ref.words}")
    if found[0].private:
        return None
    return Login(ref.username or "", await keyring.secret_value(found[0].uuid))


async def prove_lun(disk: Disk, source: IscsiSource, *, qemu_img: str, keyring: Keyring | None = None) -> None:
    """Log in as `source.initiator`, read-only, and compare the size with the VM's disk.

    Where the password is a private secret, only the guest's own QEMU can log in: at M4.

    Raises Temporary (no answer, not admitted yet) or Permanent (another size, no iSCSI in this qemu-img).
    """
    login = await login_of(disk, keyring)
    if login is None and keyring is not None and disk.chap is not None:
        return
    options = {
        "driver": "iscsi",
        "transport": "tcp",
        "portal": f"{source.portal_host}:{source.portal_port}",
        "target": source.target,
        "lun": str(source.lun),
        "initiator-name": source.initiator or "",
    }
    done = await _info(qemu_img, options, login)
    if done.code != 0:
        if "Unknown driver" in done.words or "Unknown protocol" in done.words:
            raise Permanent(f"qemu-img cannot speak iSCSI: {done.words}", fix="install qemu-block-extra")
        fix = "check that the portal is reachable from this host and that the initiator is admitted"
        raise Temporary(f"disk {disk.target}: {source.target} cannot be opened: {done.words}", fix=fix)
    size = int(json.loads(done.out)["virtual-size"])
    if disk.capacity_bytes is None or (
        disk.encrypted and size > disk.capacity_bytes
    ):  # the LUKS header comes first
        return
    if size != disk.capacity_bytes:
        raise Permanent(f"disk {disk.target}: LUN has {size} bytes here, the VM's disk {disk.capacity_bytes}")


async def _info(qemu_img: str, options: dict[str, str], login: Login | None) -> Finished:
    argv = [qemu_img, "info", "--output=json"]
    if login is None:
        return await run([*argv, "--image-opts", _words(options)], limit_s=_PROOF_S)
    options = options | {"user": login.username, "password-secret": "chap"}
    with in_memory(login.password) as fd:
        secret = ["--object", f"secret,id=chap,file=/dev/fd/{fd}"]
        return await run([*argv, *secret, "--image-opts", _words(options)], limit_s=_PROOF_S, fds=(fd,))


def _words(options: dict[str, str]) -> str:
    """A comma ends a value in --image-opts; doubled, it is a comma."""
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items())
