"""Briefs with language, doubt, grounding and full provenance; an adapter for each mailbox; alerts.

Revision 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    empty, no, zero = sa.text("''"), sa.false(), sa.text("0")
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        sa.UniqueConstraint("key", name=op.f("uq_alerts_key")),
    )
    with op.batch_alter_table("briefs") as table:
        for field in ("priority_confidence", "category_confidence"):
            table.alter_column(field, existing_type=sa.Float(), nullable=True)
        for name in ("language", "base_revision"):
            table.add_column(sa.Column(name, sa.String(), nullable=False, server_default=empty))
        for name, value in (("needs_human", "[]"), ("grounding", "{}"), ("omitted", "[]")):
            table.add_column(sa.Column(name, sa.JSON(), nullable=False, server_default=sa.text(f"'{value}'")))
        for name in ("instructions_found", "shadow"):
            table.add_column(sa.Column(name, sa.Boolean(), nullable=False, server_default=no))
        table.add_column(sa.Column("tokens_cached", sa.Integer(), nullable=False, server_default=zero))
        for name in ("prefill_seconds", "decode_seconds"):
            table.add_column(sa.Column(name, sa.Float(), nullable=False, server_default=zero))
        table.create_index(op.f("ix_briefs_created_at"), ["created_at"], unique=False)
    with op.batch_alter_table("emails") as table:
        table.add_column(sa.Column("instructions_found", sa.Boolean(), nullable=False, server_default=no))
        # Claims read in this order. With the old index beside it SQLite takes that one, and sorts all that wait.
        table.drop_index("ix_emails_work")
        table.create_index("ix_emails_ready", ["work_state", "received_at", "id"], unique=False)
    with op.batch_alter_table("mailboxes") as table:
        table.add_column(sa.Column("adapter", sa.String(), nullable=False, server_default=empty))


def downgrade() -> None:
    op.drop_table("alerts")
    with op.batch_alter_table("briefs") as table:
        table.drop_index(op.f("ix_briefs_created_at"))
        for name in (
            "language",
            "base_revision",
            "needs_human",
            "grounding",
            "omitted",
            "instructions_found",
            "shadow",
            "tokens_cached",
            "prefill_seconds",
            "decode_seconds",
        ):
            table.drop_column(name)
    with op.batch_alter_table("emails") as table:
        table.drop_index("ix_emails_ready")
        table.create_index("ix_emails_work", ["work_state", "not_before", "received_at"], unique=False)
        table.drop_column("instructions_found")
    with op.batch_alter_table("mailboxes") as table:
        table.drop_column("adapter")
