"""Who reported a migration that no controller has asked for, and how much of its journals is stored."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_Count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """What is known counts as asked for, and as nothing."""
    with op.batch_alter_table("migrations") as migrations:
        migrations.add_column(sa.Column("reported_by", sa.String(), nullable=False, server_default=""))
        migrations.add_column(sa.Column("source_bytes", _Count, nullable=False, server_default="0"))
        migrations.add_column(sa.Column("destination_bytes", _Count, nullable=False, server_default="0"))
    op.create_index("ix_migrations_reported_by", "migrations", ["reported_by"])
