"""How running copies are getting on, apart from what their journals say; when migrations ended, to list them by."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Both are empty for what is known: `finished_at` is filled in from the records."""
    with op.batch_alter_table("migrations") as migrations:
        migrations.add_column(sa.Column("progress", sa.JSON(), nullable=True))
        migrations.add_column(sa.Column("finished_at", sa.String(), nullable=True))
    table = sa.table("migrations", sa.column("number"), sa.column("finished_at"), sa.column("document", sa.JSON()))
    connection = op.get_bind()
    for row in connection.execute(sa.select(table.c.number, table.c.document)).all():
        if ended := row.document.get("finished_at"):
            connection.execute(table.update().where(table.c.number == row.number).values(finished_at=ended))
    op.create_index("ix_migrations_finished_at", "migrations", ["finished_at"])
