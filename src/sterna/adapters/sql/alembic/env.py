"""Run by Alembic: brings the database behind the connection it is given to the newest revision."""

from alembic import context

from sterna.adapters.sql.fleet_schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True, render_as_batch=True)
context.run_migrations()
