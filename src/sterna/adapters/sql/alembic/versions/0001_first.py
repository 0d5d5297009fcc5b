"""The first tables: hosts, VMs as last seen, migrations, journal entries."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_Count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """From an empty database."""
    op.create_table(
        "hosts",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("host_uuid", sa.String(), nullable=False),
        sa.Column("maintenance", sa.Boolean(), nullable=False),
        sa.Column("cursor", _Count, nullable=False),
        sa.Column("mark", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
    )
    op.create_table(
        "vms",
        sa.Column("uuid", sa.String(), primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False, index=True),
        sa.Column("migration_id", sa.String(), nullable=True),
        sa.Column("document", sa.JSON(), nullable=False),
    )
    op.create_table(
        "migrations",
        sa.Column("number", _Count, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("vm_uuid", sa.String(), nullable=False, index=True),
        sa.Column("vm_name", sa.String(), nullable=False, index=True),
        sa.Column("status", sa.String(), nullable=False, index=True),
        sa.Column("document", sa.JSON(), nullable=False),
    )
    op.create_table(
        "entries",
        sa.Column("id", _Count, primary_key=True, autoincrement=True),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("seq", _Count, nullable=False),
        sa.Column("migration_id", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.UniqueConstraint("host", "generation", "seq", name="uq_entries_host_generation_seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_entries_migration_id", "entries", ["migration_id", "id"])
