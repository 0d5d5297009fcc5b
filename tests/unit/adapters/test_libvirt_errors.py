"""What libvirt's errors mean to us."""

from __future__ import annotations

import libvirt
import pytest

from sterna.adapters.libvirt.session.connection import in_our_words
from sterna.domain.errors import NotFound, Permanent, SternaError, Temporary, Unreachable


@pytest.mark.parametrize(
    ("domain", "code", "kind"),
    [
        (libvirt.VIR_FROM_QEMU, libvirt.VIR_ERR_OPERATION_TIMEOUT, Temporary),
        (libvirt.VIR_FROM_STORAGE, libvirt.VIR_ERR_RESOURCE_BUSY, Temporary),
        (libvirt.VIR_FROM_QEMU, libvirt.VIR_ERR_NO_DOMAIN, NotFound),
        (libvirt.VIR_FROM_QEMU, libvirt.VIR_ERR_OPERATION_INVALID, Permanent),
        (libvirt.VIR_FROM_RPC, libvirt.VIR_ERR_INTERNAL_ERROR, Unreachable),
    ],
)
def test_kinds(domain: int, code: int, kind: type[SternaError]) -> None:
    error = libvirt.libvirtError("it did not work")
    error.err = (code, domain, "it did not work", libvirt.VIR_ERR_ERROR, None, None, None, -1, -1)
    ours = in_our_words(error)
    assert type(ours) is kind and "it did not work" in ours.message
    assert ours.fix or kind in (NotFound, Permanent)
