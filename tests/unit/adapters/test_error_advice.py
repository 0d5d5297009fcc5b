"""Whatever libvirt refuses, an operator is told what would help."""

from __future__ import annotations

import libvirt
import pytest

from sterna.adapters.libvirt.session import error_advice
from sterna.adapters.libvirt.session.connection import in_our_words


def error(
    code: int, words: str = "Requested operation is not valid: domain is not running"
) -> libvirt.libvirtError:
    made = libvirt.libvirtError(words)
    made.err = (code, libvirt.VIR_FROM_QEMU, words, libvirt.VIR_ERR_ERROR, None, None, None, 0, 0)
    return made


CODES = sorted(v for k, v in vars(libvirt).items() if k.startswith("VIR_ERR_") and isinstance(v, int) and v > 3)


def test_every_error_of_libvirt_has_a_fix() -> None:
    assert len(CODES) > 90
    for code in CODES:
        told = in_our_words(error(code))
        assert told.fix, code


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, "virsh domjobinfo"),
        (libvirt.VIR_ERR_NO_DOMAIN, "virsh list --all"),
        (libvirt.VIR_ERR_MIGRATE_UNSAFE, "shared_filesystems"),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "journalctl -u libvirtd"),
    ],
)
def test_what_it_says(code: int, fix: str) -> None:
    assert fix in in_our_words(error(code)).fix


def test_no_advice_names_a_code_that_this_libvirt_does_not_have() -> None:
    assert [name for name in error_advice._BY_CODE if not hasattr(libvirt, name)] == []
