"""What the doctor looks at in Open vSwitch. Changes nothing."""

from __future__ import annotations

from sterna.adapters.vif.ovsdb import OvsDb, rows
from sterna.domain.errors import SternaError
from sterna.domain.model import Data


async def look_at_ovs(remote: str) -> Data:
    """Its bridges, or why it cannot be used; nothing for a host without Open vSwitch (`remote` '')."""
    if not remote:
        return {}
    database = OvsDb(remote)
    try:
        bridges = await database.run(lambda api: tuple(sorted(row.name for row in rows(api, "Bridge"))))
    except SternaError as error:
        return {"ovs_error": error.message}
    finally:
        await database.close()
    return {"ovs_error": "", "ovs_bridges": bridges}
