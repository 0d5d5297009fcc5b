"""${message}"""

from alembic import op
import sqlalchemy as sa
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the tables from the revision before to this one."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Sterna never goes back: restore a copy instead."""
    raise NotImplementedError
