"""Refusals about what a VM's definition names on its host besides disks, NICs and CPUs (`references.py`)."""

from __future__ import annotations

from sterna.domain.refusals.entry import Against, By, Entry, Group

DEFINITION = Group(
    "Resources in the definition",
    (
        Entry(
            "listen-address-missing",
            cause="The VM listens on an address that the destination does not have.",
            remedy="let it listen on `0.0.0.0` or `127.0.0.1` (`virsh edit`, then restart the VM)",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "port-taken",
            cause="Another program on the destination, or a guest that is migrating there, uses the port.",
            remedy="end the program, or give the VM another port",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "remote-unreachable",
            cause="The VM connects to an address at which no program answers the destination.",
            remedy="start the program that listens there, or let QEMU reconnect (`<reconnect enabled='yes'/>`)",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "folder-missing",
            cause="The destination does not have the folder of a socket or file that QEMU creates.",
            remedy="create the folder there",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "path-taken",
            cause="Another VM there, or on its way there, uses the path, or it is a folder or a disk of the VM.",
            remedy="give one of the two VMs another path",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "path-silent",
            cause="The file system of a disk, or of another path that the VM names, does not answer on a host.",
            remedy="repair the storage on that host, or remove the path from the VM",
            by=By.AGENTS,
            when="plan, P6",
        ),
        Entry(
            "socket-missing",
            cause="The VM connects to a socket at which no program listens on the destination.",
            remedy="start that program there",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "file-missing",
            cause="The destination does not have a file that the VM needs.",
            remedy="copy it there, or remove it from the VM",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "file-differs",
            cause="The file has different content on the destination, or is too large to be compared.",
            remedy="copy it from the source, or put it on shared storage",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "firmware-size",
            cause="The firmware file has a different size on the destination.",
            remedy="install the same firmware package on both hosts",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "firmware-overwritten",
            cause="The VM writes its firmware variables into a file of an installed package, or into the template.",
            remedy="give the VM an NVRAM file of its own",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "firmware-not-shared",
            cause="The guest writes into its firmware's file (pflash, not read-only), which only the source sees.",
            remedy="put it on shared storage, or give the VM read-only firmware with an NVRAM file",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "state-file-exists",
            cause="A file with the VM's NVRAM's name exists on the destination, and is not known to be this VM's.",
            remedy="remove it there if nothing needs it, or give the VM another path",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "device-missing",
            cause="The destination does not have a device that the VM uses.",
            remedy="load its driver there, or remove the device from the VM",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "argument-disk",
            cause="Arguments passed to QEMU name a block device, or a file that QEMU writes and only the source "
            "has.",
            remedy="define it as a `<disk>` of the VM, put the file on storage that both hosts see, or remove it",
            by=By.DESTINATION,
            when="plan, P6",
            against=Against.VM,
        ),
        Entry(
            "vsock-taken",
            cause="Another VM on the destination, or migrating there, uses the vsock address.",
            remedy="let libvirt choose it (`<cid auto='yes'/>`)",
            by=By.DESTINATION,
            when="plan, P6",
        ),
        Entry(
            "security-driver-missing",
            cause="The VM has a label of a security driver that libvirt on the destination does not use.",
            remedy="add it to `security_driver` in qemu.conf there, or remove the `<seclabel>`",
            by=By.DESTINATION,
            when="plan, P6",
        ),
    ),
)
