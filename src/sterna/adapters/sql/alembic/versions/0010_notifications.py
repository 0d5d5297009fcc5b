"""Notifications: endpoints, what waits for them, and who sends it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_Count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Name = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """All tables are empty at first: nothing that has happened before is sent."""
    op.create_table(
        "notification_endpoints",
        sa.Column("name", _Name, primary_key=True),
        sa.Column("seen_at", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
    )
    op.create_table(
        "notifications",
        sa.Column("number", _Count, primary_key=True, autoincrement=True),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notifications_endpoint_number", "notifications", ["endpoint", "number"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("epoch", _Count, nullable=False),
        sa.Column("beat", _Count, nullable=False),
    )
    op.create_table("hosts_down", sa.Column("name", sa.String(), primary_key=True))
