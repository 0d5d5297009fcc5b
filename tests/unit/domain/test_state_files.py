"""Which files of the destination an arriving guest may write over."""

from __future__ import annotations

import pytest

from sterna.domain.model import Disk, DiskKind, GuestState, StateFile, Vm
from sterna.domain.references import Kind, Reference
from sterna.domain.state_files import against, overwritten

UUID, OTHER = "6f0a3c3e-0000-4000-8000-00000000000a", "6f0a3c3e-0000-4000-8000-00000000000b"
OVMF, FOLDER, SWTPM = "/usr/share/OVMF/OVMF_VARS_4M.fd", "/var/lib/libvirt/qemu/nvram", "/var/lib/libvirt/swtpm"


def vm(*states: StateFile, output: str = "") -> Vm:
    disk = Disk(target="vda", kind=DiskKind.FILE, path="/srv/a.qcow2", backing_path="/srv/base.qcow2")
    refs = (Reference(kind=Kind.OUTPUT, name=output, where="serial 0"),) if output else ()
    return Vm(
        uuid=UUID,
        name="web",
        state=GuestState.RUNNING,
        memory_bytes=1,
        vcpus=1,
        disks=(disk,),
        firmware=states,
        references=refs,
    )


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (StateFile(kind="nvram", path=f"{FOLDER}/web_VARS.fd", template=OVMF), ""),
        (StateFile(kind="nvram", path="/srv/web.fd", template=OVMF), ""),
        (StateFile(kind="nvram", path=OVMF), "firmware-overwritten"),
        (StateFile(kind="nvram", path=OVMF, shared=True), "firmware-overwritten"),
        (StateFile(kind="nvram", path="/srv/../usr/share/x.fd"), "firmware-overwritten"),
        (StateFile(kind="nvram", path="/opt/vars.fd", template="/opt/vars.fd"), "firmware-overwritten"),
        (StateFile(kind="flash", path="/usr/share/OVMF/OVMF.fd"), "firmware-overwritten"),
        (StateFile(kind="flash", path="/srv/web.fd"), "firmware-not-shared"),
        (StateFile(kind="flash", path="/srv/web.fd", shared=True), ""),
        (StateFile(kind="tpm", path=f"{SWTPM}/{UUID}"), ""),
        (StateFile(kind="tpm", path=f"{SWTPM}/{UUID}/tpm2"), ""),
        (StateFile(kind="tpm", path="/srv/tpm"), ""),
        (StateFile(kind="tpm", path=f"{SWTPM}/mine"), ""),
        (StateFile(kind="tpm", path=f"{SWTPM}/{OTHER}"), "path-taken"),
        (StateFile(kind="tpm", path=SWTPM), "path-taken"),
        (StateFile(kind="tpm", path="/var/lib/"), "path-taken"),
        (StateFile(kind="tpm", path="/"), "path-taken"),
        (StateFile(kind="save", path="/usr/x"), ""),
    ],
)
def test_a_file_that_is_not_the_vms_alone_is_not_written(state: StateFile, code: str) -> None:
    assert [refusal.code for refusal in against(vm(state))] == ([code] if code else [])


@pytest.mark.parametrize(
    ("path", "codes"), [("/srv/a.log", []), ("/srv/a.qcow2", ["path-taken"]), ("/srv/base.qcow2", ["path-taken"])]
)
def test_a_device_does_not_write_into_the_vms_own_disk(path: str, codes: list[str]) -> None:
    assert [refusal.code for refusal in against(vm(output=path))] == codes


@pytest.mark.parametrize(
    ("state", "judged"),
    [
        (StateFile(kind="nvram", path=f"{FOLDER}/web_VARS.fd"), False),
        (StateFile(kind="nvram", path=f"{FOLDER}/web_VARS.qcow2"), False),
        (StateFile(kind="nvram", path=f"{FOLDER}/{UUID}.fd"), False),
        (StateFile(kind="nvram", path=f"{FOLDER}/mail_VARS.fd"), True),
        (StateFile(kind="nvram", path=f"{FOLDER}/mail_VARS.fd", shared=True), False),
        (StateFile(kind="nvram", path="/srv/web_VARS.fd"), True),
        (StateFile(kind="tpm", path="/srv/tpm"), False),
    ],
)
def test_nvram_is_judged_unless_it_is_shared_or_libvirt_named_it_after_the_vm(
    state: StateFile, judged: bool
) -> None:
    assert list(overwritten(vm(state))) == ([state] if judged else [])
