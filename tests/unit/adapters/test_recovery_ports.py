"""The port on which a guest in post-copy waits for its source again."""

from __future__ import annotations

from pathlib import Path

import pytest

from sterna.adapters.libvirt.qemu.recovery import recovery_ports


@pytest.mark.parametrize(
    ("first", "last", "tried_first", "tried_last"),
    [
        (49152, 49215, 49215, 49152),
        (49152, 49160, 49160, 49152),
        (49200, 49999, 49215, 49200),  # what the source's agent takes from a peer ends there
        (50000, 50063, 49215, 49152),
    ],
)
def test_the_lowest_ports_are_left_to_libvirt(
    tmp_path: Path, first: int, last: int, tried_first: int, tried_last: int
) -> None:
    """It gives the first free one to a migration, whose QEMU listens there half a second later."""
    conf = tmp_path / "qemu.conf"
    conf.write_text(f"migration_port_min = {first}\nmigration_port_max = {last}\n")
    ports = recovery_ports(conf)
    assert (ports[0], ports[-1]) == (tried_first, tried_last)
    assert ports == sorted(ports, reverse=True)
