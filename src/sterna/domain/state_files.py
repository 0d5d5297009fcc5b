"""Whether the files that hold a VM's state (NVRAM, writable firmware, TPM state) may be written on the destination.
Pure.

QEMU writes the whole flash to its file once the guest's memory has arrived, and swtpm writes its state. What these
files held before is lost.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from sterna.domain.model import Refusal, StateFile, Vm
from sterna.domain.references import Kind

NVRAM_FOLDER = "/var/lib/libvirt/qemu/nvram"
"""libvirt's own folder, this host's alone. An NVRAM file elsewhere may be the destination's as well."""
TPM_FOLDER = "/var/lib/libvirt/swtpm"
"""Where libvirt keeps the state of emulated TPMs: a folder for each UUID."""

WRITTEN = {"nvram": "NVRAM", "flash": "firmware that the guest writes"}
"""Files that QEMU writes as a whole when the guest arrives, in words."""
_PACKAGED = "/usr/"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOADER = "give the VM firmware that is read-only (<loader readonly='yes'>) with an NVRAM file of its own"
_FIXES = {
    "nvram": f"give the VM an NVRAM file of its own: copy the file to {NVRAM_FOLDER} and name the copy in <nvram>",
    "flash": _LOADER,
}


def against(vm: Vm) -> list[Refusal]:
    """What can be said of the VM's files without a look at the destination."""
    return [*_flashes(vm), *_tpms(vm), *_outputs(vm)]


def _flashes(vm: Vm) -> Iterator[Refusal]:
    for state in vm.firmware:
        if state.kind not in WRITTEN:
            continue
        what, path = WRITTEN[state.kind], posixpath.normpath(state.path)
        why = ""
        if state.template and posixpath.normpath(state.template) == path:
            why = "which is the template of every VM's NVRAM"
        elif path.startswith(_PACKAGED):
            why = "a file of an installed package"
        if why:
            message = f"{what}: the destination's {state.path} would be overwritten, {why}"
            fix = _FIXES[state.kind]
            yield Refusal(code="firmware-overwritten", message=message, fix=fix)
        elif state.kind == "flash" and not state.shared:
            message = f"{what}: {state.path} is not on storage that both hosts see, and libvirt does not send it"
            fix = f"put it on storage that both hosts see, or {_LOADER}"
            yield Refusal(code="firmware-not-shared", message=message, fix=fix)


def _tpms(vm: Vm) -> Iterator[Refusal]:
    for state in vm.firmware:
        path = posixpath.normpath(state.path)
        if state.kind == "tpm" and (
            f"{TPM_FOLDER}/".startswith(f"{path.rstrip('/')}/") or _is_of_another(vm, path)
        ):
            message = (
                f"the TPM's state would be written to {state.path}, where libvirt keeps the state of other VMs"
            )
            fix = "shut the VM down, move the state to a folder of its own and name that, or remove the <source>"
            yield Refusal(code="path-taken", message=message, fix=fix)


def _is_of_another(vm: Vm, path: str) -> bool:
    """Is it in the folder that libvirt would give to another UUID?"""
    below = path.removeprefix(f"{TPM_FOLDER}/")
    name = below.partition("/")[0].lower()
    return below != path and _UUID.fullmatch(name) is not None and name != vm.uuid.lower()


def _outputs(vm: Vm) -> Iterator[Refusal]:
    """QEMU opens such a file for writing when it starts, which empties it unless it appends."""
    disks = {posixpath.normpath(path): disk.target for disk in vm.disks for path in disk.files}
    for ref in vm.references:
        target = disks.get(posixpath.normpath(ref.name)) if ref.kind is Kind.OUTPUT else None
        if target is not None:
            message = f"{ref.where} writes {ref.name}, a file of the VM's own disk {target}"
            yield Refusal(code="path-taken", message=message, fix="name another file (virsh edit)")


def overwritten(vm: Vm) -> Iterator[StateFile]:
    """Files that must not exist on the destination, unless the VM itself has left them there: neither both hosts'
    nor named after the VM in libvirt's own folder, where libvirt takes them for this VM's."""
    for state in vm.firmware:
        if state.kind in WRITTEN and not state.shared and not _is_named_after(vm, state.path):
            yield state


def _is_named_after(vm: Vm, path: str) -> bool:
    folder, name = posixpath.split(path)
    return folder == NVRAM_FOLDER and (name.startswith((f"{vm.name}_VARS.", f"{vm.uuid}.", f"{vm.uuid}_VARS.")))


def exist(states: Iterable[StateFile], host: str) -> list[Refusal]:
    """A reason for each of them, which exists on the host."""
    return [
        Refusal(
            code="state-file-exists",
            message=f"{WRITTEN[s.kind]} would overwrite {s.path} on {host}, which is not known to be this VM's",
            fix=f"if nothing on {host} needs it, remove it there; otherwise give the VM another path",
        )
        for s in states
    ]
