"""How far each host of a rolling operation is."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_Name = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """The table is empty at first: no rolling operation was begun by an earlier version."""
    op.create_table(
        "operation_hosts",
        sa.Column("operation", sa.String(), primary_key=True),
        sa.Column("host", _Name, primary_key=True),
        sa.Column("document", sa.JSON(), nullable=False),
    )
