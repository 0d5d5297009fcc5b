"""What an operator can do about an error of libvirt's. libvirt itself reports only what is wrong. Pure."""

from __future__ import annotations

import libvirt

LOGS = (
    "libvirt's log on that host says more: `journalctl -u libvirtd -u virtqemud`, and the guest's in "
    "/var/log/libvirt/qemu"
)
"""Where nothing better is known."""

_BY_CODE = {
    "VIR_ERR_NO_DOMAIN": "`virsh list --all` on that host shows its guests",
    "VIR_ERR_OPERATION_INVALID": "find out what the guest is doing: `virsh domstate --reason` and `virsh "
    "domjobinfo`",
    "VIR_ERR_OPERATION_UNSUPPORTED": "update libvirt and QEMU on that host, or change the guest",
    "VIR_ERR_CONFIG_UNSUPPORTED": "update libvirt and QEMU on that host, or change the definition",
    "VIR_ERR_ARGUMENT_UNSUPPORTED": "update libvirt and QEMU on that host",
    "VIR_ERR_NO_SUPPORT": "update libvirt on that host",
    "VIR_ERR_XML_ERROR": "correct the definition (`virsh edit`); `virt-xml-validate` checks it",
    "VIR_ERR_AUTH_FAILED": "give the agent access to libvirt: it needs the read-write socket",
    "VIR_ERR_ACCESS_DENIED": "give the agent access to libvirt (polkit, or libvirt's access drivers)",
    "VIR_ERR_NO_NETWORK": "`virsh net-list --all` on that host shows its networks: define it there",
    "VIR_ERR_NO_NWFILTER": "`virsh nwfilter-list` on that host shows its filters: define it there",
    "VIR_ERR_NO_SECRET": "`virsh secret-list` on that host shows its secrets: define it there",
    "VIR_ERR_NO_STORAGE_POOL": "`virsh pool-list --all` on that host shows its pools: define and start it there",
    "VIR_ERR_NO_STORAGE_VOL": "`virsh vol-list POOL` on that host shows its volumes",
    "VIR_ERR_MIGRATE_UNSAFE": "use cache='none', or name the disk's folder in `shared_filesystems` (qemu.conf)",
    "VIR_ERR_CPU_INCOMPATIBLE": "give the guest a CPU model that both hosts have (`virsh hypervisor-cpu-baseline`)",
    "VIR_ERR_DEVICE_MISSING": "check whether the device is still there: `virsh dumpxml`",
    "VIR_ERR_CHECKPOINT_INCONSISTENT": "delete the checkpoint: `virsh checkpoint-delete`",
}
_FIXES = {code: fix for name, fix in _BY_CODE.items() if (code := getattr(libvirt, name, None)) is not None}


def fix_for(error: libvirt.libvirtError) -> str:
    """Never ''."""
    return _FIXES.get(error.get_error_code()) or LOGS
