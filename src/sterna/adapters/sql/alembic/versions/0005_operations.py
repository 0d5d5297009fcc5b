"""Operations, and the migrations that they have decided on."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_Count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Both tables are empty at first."""
    op.create_table(
        "operations",
        sa.Column("number", _Count, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("status", sa.String(), nullable=False, index=True),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("epoch", _Count, nullable=False),
        sa.Column("beat", _Count, nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("standing", sa.JSON(), nullable=False),
    )
    op.create_table(
        "attempts",
        sa.Column("migration", sa.String(), primary_key=True),
        sa.Column("operation", sa.String(), nullable=False, index=True),
        sa.Column("number", _Count, nullable=False),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("document", sa.JSON(), nullable=False),
    )
