"""The tables of the controller's records. Changed only together with a revision under `alembic/versions/`.

What is looked up or compared has a column; the rest of a record is its plain-JSON form in `document`.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, UniqueConstraint

metadata = MetaData()

_Count = BigInteger().with_variant(Integer, "sqlite")  # where Integer holds as much, and numbers rows by itself

_Name = String().with_variant(String(collation="C"), "postgresql")
"""In the order of bytes, as on SQLite: pages are made by it."""

hosts = Table(
    "hosts",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("host_uuid", String, nullable=False),
    Column("maintenance", Boolean, nullable=False, default=False),
    Column("cursor", _Count, nullable=False, default=0),
    Column("mark", String, nullable=False, default=""),
    Column("generation", Integer, nullable=False, default=0),
    Column("vms_boot", String, nullable=False, default=""),
    Column("vms_seq", _Count, nullable=False, default=0),
    Column("vms_digest", String, nullable=False, default=""),
    Column("revision", _Count, nullable=False, default=0),
    Column("document", JSON, nullable=False),
)
"""`vms_*`: up to where its list of VMs has been taken. `revision`: grows with each change of the row."""

vms = Table(
    "vms",
    metadata,
    Column("uuid", _Name, primary_key=True),
    Column("name", _Name, nullable=False),
    Column("host", String, nullable=False, index=True),
    Column("state", String, nullable=False, default="unknown"),
    Column("migration_id", String, nullable=True, index=True),
    Column("document", JSON, nullable=False),
    Index("ix_vms_name_uuid", "name", "uuid"),
)
"""Each VM once, where it is at home."""

sightings = Table(
    "sightings",
    metadata,
    Column("host", String, primary_key=True),
    Column("uuid", String, primary_key=True, index=True),
    Column("state", String, nullable=False),
    Column("document", JSON, nullable=False),
)
"""What each host says of each VM that it has."""

migrations = Table(
    "migrations",
    metadata,
    Column("number", _Count, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("vm_uuid", String, nullable=False, index=True),
    Column("vm_name", String, nullable=False, index=True),
    Column("status", String, nullable=False, index=True),
    Column("finished_at", String, nullable=True, index=True),
    Column("reported_by", String, nullable=False, index=True, default=""),
    Column("closed_at", String, nullable=True, index=True),
    Column("source_bytes", _Count, nullable=False, default=0),
    Column("destination_bytes", _Count, nullable=False, default=0),
    Column("document", JSON, nullable=False),
    Column("progress", JSON(none_as_null=True), nullable=True),
)
"""`progress`: newer than the one in the document, where there is any: it is written often, and alone.
`source_bytes`, `destination_bytes`: of the entries that are stored of each host. `closed_at`: since
when it has ended, and nothing of it is open on its hosts, by the controller's clock."""

entries = Table(
    "entries",
    metadata,
    Column("id", _Count, primary_key=True, autoincrement=True),
    Column("host", String, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("seq", _Count, nullable=False),
    Column("migration_id", String, nullable=False),
    Column("document", JSON, nullable=False),
    UniqueConstraint("host", "generation", "seq", name="uq_entries_host_generation_seq"),
    Index("ix_entries_migration_id", "migration_id", "id"),
    sqlite_autoincrement=True,  # ids are event ids: never given out twice
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("document", JSON, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    Column("number", _Count, primary_key=True, autoincrement=True),
    Column("request", String, nullable=False, unique=True),
    Column("at", String, nullable=False, index=True),
    Column("actor", String, nullable=False, index=True),
    Column("action", String, nullable=False),
    Column("target", String, nullable=False, index=True),
    Column("document", JSON, nullable=False),
    sqlite_autoincrement=True,
)
"""The audit log: what was asked. Rows are added, never changed; triggers allow only old ones to be removed."""

answers = Table(
    "answers",
    metadata,
    Column("request", String, primary_key=True),
    Column("status", Integer, nullable=False),
    Column("at", String, nullable=False),
)
"""The audit log: how it was answered."""

operations = Table(
    "operations",
    metadata,
    Column("number", _Count, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("status", String, nullable=False, index=True),
    Column("holder", String, nullable=False),
    Column("epoch", _Count, nullable=False),
    Column("beat", _Count, nullable=False),
    Column("document", JSON, nullable=False),
    Column("standing", JSON, nullable=False),
)
"""`holder`, `epoch`, `beat`: its lease. `standing`: how it gets on, written often and alone."""

operation_hosts = Table(
    "operation_hosts",
    metadata,
    Column("operation", String, primary_key=True),
    Column("host", _Name, primary_key=True),
    Column("document", JSON, nullable=False),
)
"""How far each host of a rolling operation is."""

attempts = Table(
    "attempts",
    metadata,
    Column("migration", String, primary_key=True),
    Column("operation", String, nullable=False, index=True),
    Column("number", _Count, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("document", JSON, nullable=False),
)
"""The migrations that operations have decided on."""

rules = Table(
    "rules",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("kind", String, nullable=False),
    Column("document", JSON, nullable=False),
)
"""Placement rules."""

notification_endpoints = Table(
    "notification_endpoints",
    metadata,
    Column("name", _Name, primary_key=True),
    Column("seen_at", String, nullable=False),
    Column("document", JSON, nullable=False),
)
"""Of the controllers' settings: whom events are written for."""

notifications = Table(
    "notifications",
    metadata,
    Column("number", _Count, primary_key=True, autoincrement=True),
    Column("endpoint", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("id", String, nullable=False),
    Column("type", String, nullable=False),
    Column("at", String, nullable=False),
    Column("document", JSON, nullable=False),
    Index("ix_notifications_endpoint_number", "endpoint", "number"),
    sqlite_autoincrement=True,
)
"""Events that an endpoint has not accepted yet: one row for each endpoint."""

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("epoch", _Count, nullable=False),
    Column("beat", _Count, nullable=False),
)
"""What one controller does at a time, besides operations."""

hosts_down = Table("hosts_down", metadata, Column("name", String, primary_key=True))
"""Hosts of which it was reported that they are down."""
