"""Placement rules."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_Name = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """The table is empty at first."""
    op.create_table(
        "rules",
        sa.Column("name", _Name, primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
    )
