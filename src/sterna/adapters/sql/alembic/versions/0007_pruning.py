"""What old records are found by, and a log whose lines may be removed when they are old."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_FINAL = ("completed", "failed", "cancelled")


def upgrade() -> None:
    """A migration that has ended is closed since it changed last. The log still takes no changes."""
    with op.batch_alter_table("migrations") as migrations:
        migrations.add_column(sa.Column("closed_at", sa.String(), nullable=True))
    _fill()
    op.create_index("ix_migrations_closed_at", "migrations", ["closed_at"])
    op.create_index("ix_requests_at", "requests", ["at"])
    if op.get_context().dialect.name == "sqlite":
        _log_on_sqlite()
    else:
        _log_on_postgresql()


def _fill() -> None:
    migrations = sa.table(
        "migrations",
        *(sa.column(name) for name in ("number", "id", "status", "closed_at")),
        sa.column("document", sa.JSON()),
    )
    entries = sa.table("entries", sa.column("host"), sa.column("migration_id"))
    connection, c = op.get_bind(), migrations.c
    ended = sa.select(c.number, c.id, c.document).where(c.status.in_(_FINAL))
    for row in connection.execute(ended).all():
        record = row.document
        source = record.get("source_closed") or record.get("written_off") or not record.get("accepted")
        destination = record.get("destination_closed")
        if source and not destination:
            there = entries.c.migration_id == row.id, entries.c.host == record["migration"]["destination"]
            destination = connection.execute(sa.select(entries.c.host).where(*there).limit(1)).first() is None
        at = record.get("updated_at") or record.get("finished_at")
        if source and destination and at:
            connection.execute(migrations.update().where(c.number == row.number).values(closed_at=at))


def _log_on_sqlite() -> None:
    op.execute("DROP TRIGGER requests_no_delete")
    op.execute("DROP TRIGGER answers_no_delete")
    op.execute(
        "CREATE TRIGGER requests_no_delete BEFORE DELETE ON requests "
        "WHEN OLD.at >= strftime('%Y-%m-%dT%H:%M:%S', 'now', '-30 days') "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    )
    op.execute(
        "CREATE TRIGGER answers_no_delete BEFORE DELETE ON answers "
        "WHEN EXISTS (SELECT 1 FROM requests WHERE requests.request = OLD.request) "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
    )


def _log_on_postgresql() -> None:
    for table in ("requests", "answers"):
        op.execute(f"DROP TRIGGER {table}_append_only ON {table}")
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(
        "CREATE FUNCTION refuse_new_requests() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF OLD.at::timestamptz >= now() - interval '30 days' THEN "
        "RAISE EXCEPTION 'the audit log is append-only'; END IF; RETURN OLD; END $$"
    )
    op.execute(
        "CREATE FUNCTION refuse_answers_alone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF EXISTS (SELECT 1 FROM requests WHERE requests.request = OLD.request) THEN "
        "RAISE EXCEPTION 'the audit log is append-only'; END IF; RETURN OLD; END $$"
    )
    for table, function in (("requests", "refuse_new_requests"), ("answers", "refuse_answers_alone")):
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
        )
