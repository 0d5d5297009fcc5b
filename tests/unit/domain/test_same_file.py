"""Is a file still the one that a migration knew? Its identity: device, inode, ID of its file system."""

from __future__ import annotations

import pytest

from sterna.domain.files import same_file


@pytest.mark.parametrize(
    "known, found, same",
    [
        ("2049:131:77", "2049:131:77", True),
        ("2049:131:77", "2049:132:77", False),
        ("2049:131:77", "2065:131:77", True),  # the disk has another number after a reboot
        ("2049:131:77", "2065:131:78", False),  # another file system is mounted there
        ("2049:131:77", "2049:131:78", False),
        ("2049:131:0", "2049:131:0", True),  # a file system without an ID: by its device
        ("2049:131:0", "2065:131:0", False),
        ("2049:131:0", "2049:131:78", False),
        ("2049:131", "2065:131:77", True),  # a journal of a version that did not write it
        ("2049:131", "2049:132:77", False),
    ],
)
def test_same_file(known: str, found: str, same: bool) -> None:
    assert same_file(known, found) is same
