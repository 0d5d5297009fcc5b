"""What each host says of each VM, and up to where it has been told; columns to list by."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_Count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """VMs that are known are seen again: every host is asked for its whole list once."""
    op.create_table(
        "sightings",
        sa.Column("host", sa.String(), primary_key=True),
        sa.Column("uuid", sa.String(), primary_key=True, index=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
    )
    with op.batch_alter_table("hosts") as hosts:
        hosts.add_column(sa.Column("vms_boot", sa.String(), nullable=False, server_default=""))
        hosts.add_column(sa.Column("vms_seq", _Count, nullable=False, server_default="0"))
        hosts.add_column(sa.Column("vms_digest", sa.String(), nullable=False, server_default=""))
        hosts.add_column(sa.Column("revision", _Count, nullable=False, server_default="0"))
    with op.batch_alter_table("vms") as vms:
        vms.add_column(sa.Column("state", sa.String(), nullable=False, server_default="unknown"))
    if op.get_context().dialect.name == "postgresql":  # in the order of bytes, as on SQLite: pages are made by it
        op.execute('ALTER TABLE hosts ALTER COLUMN name TYPE VARCHAR COLLATE "C"')
        op.execute('ALTER TABLE vms ALTER COLUMN name TYPE VARCHAR COLLATE "C"')
        op.execute('ALTER TABLE vms ALTER COLUMN uuid TYPE VARCHAR COLLATE "C"')
    op.create_index("ix_vms_name_uuid", "vms", ["name", "uuid"])
    op.create_index("ix_vms_migration_id", "vms", ["migration_id"])
