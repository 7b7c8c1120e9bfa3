"""When all UIDs of a folder were last listed, which is not the same as when it was last looked at.

Revision 0005.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Empty for the folders that there are: each is listed once more.
    op.add_column("folder_cursors", sa.Column("listed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("folder_cursors") as batch:
        batch.drop_column("listed_at")
