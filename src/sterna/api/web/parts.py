"""All modules with pages."""

from __future__ import annotations

from sterna.api.web import (
    assets,
    fleet,
    hosts,
    live,
    migrations,
    operations,
    queue,
    rearranging,
    records,
    sign_in,
    vms,
)

PAGES = (assets, sign_in, fleet, hosts, vms, live, migrations, operations, rearranging, queue, records)
