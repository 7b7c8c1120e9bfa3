"""Splits that last, exclusions, progress and verdict of runs, the history of champions; a category more.

Revision 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CANCELLATION = ("cancellation", "ending a contract or subscription, calling off an order or booking")


def upgrade() -> None:
    empty, no, zero, nothing = sa.text("''"), sa.false(), sa.text("0"), sa.text("'{}'")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "split_members",
        sa.Column("example_id", sa.String(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_split_members_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("example_id", name=op.f("pk_split_members")),
    )
    op.create_table(
        "exclusions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("since", moment, nullable=True),
        sa.Column("until", moment, nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("lifted_at", moment, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_exclusions_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exclusions")),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("before", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("proof", sa.JSON(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    with op.batch_alter_table("datasets") as table:
        table.add_column(
            sa.Column("source", sa.String(), nullable=False, server_default=sa.text("'corrections'"))
        )
        table.add_column(sa.Column("report", sa.JSON(), nullable=False, server_default=nothing))
    with op.batch_alter_table("training_runs") as table:
        table.add_column(sa.Column("stage", sa.String(), nullable=False, server_default=empty))
        table.add_column(sa.Column("seconds_left", sa.Float(), nullable=True))
        table.add_column(sa.Column("paused_seconds", sa.Float(), nullable=False, server_default=zero))
        table.add_column(sa.Column("cancel_requested", sa.Boolean(), nullable=False, server_default=no))
        table.add_column(sa.Column("cause", sa.String(), nullable=False, server_default=sa.text("'person'")))
        table.add_column(sa.Column("verdict", sa.JSON(), nullable=False, server_default=nothing))
    # Who was put in use before there was a history: the order of promotion is all that is known.
    connection = op.get_bind()
    adapters = connection.execute(
        sa.text("SELECT name, promoted_at FROM adapters WHERE promoted_at IS NOT NULL ORDER BY promoted_at")
    ).all()
    before = ""
    for name, promoted_at in adapters:
        connection.execute(
            sa.text(
                "INSERT INTO promotions (adapter, before, kind, actor, proof, created_at)"
                " VALUES (:adapter, :before, 'promote', '', '{}', :created_at)"
            ),
            {"adapter": name, "before": before, "created_at": promoted_at},
        )
        before = name
    # A new installation starts with it; one that has mail keeps the categories it has.
    if connection.execute(sa.text("SELECT 1 FROM emails LIMIT 1")).first() is None:
        position = connection.execute(
            sa.text("SELECT position FROM categories WHERE name = 'other'")
        ).scalar()
        if position is not None:
            connection.execute(
                sa.text("UPDATE categories SET position = position + 1 WHERE position >= :p"), {"p": position}
            )
            connection.execute(
                sa.text(
                    "INSERT INTO categories (name, description, position) VALUES (:name, :description, :p)"
                ),
                {"name": CANCELLATION[0], "description": CANCELLATION[1], "p": position},
            )


def downgrade() -> None:
    with op.batch_alter_table("training_runs") as table:
        for name in ("stage", "seconds_left", "paused_seconds", "cancel_requested", "cause", "verdict"):
            table.drop_column(name)
    with op.batch_alter_table("datasets") as table:
        table.drop_column("source")
        table.drop_column("report")
    for name in ("promotions", "exclusions", "split_members"):
        op.drop_table(name)
    op.get_bind().execute(
        sa.text("DELETE FROM categories WHERE name = :name AND NOT EXISTS (SELECT 1 FROM emails)"),
        {"name": CANCELLATION[0]},
    )
