"""Generations of folders, backfill, OAuth2 accounts, own addresses, events; ids of threads, languages.

Revision 0004.
"""

import sqlalchemy as sa
from alembic import op

from briefbox.store.thread_keys import id_key, subject_key

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_KEYS = {
    "ledger": ("uq_ledger_mailbox_id_folder_uidvalidity_uid", ["mailbox_id", "folder", "uidvalidity", "uid"]),
    "folder_cursors": (
        "uq_folder_cursors_mailbox_id_folder_uidvalidity",
        ["mailbox_id", "folder", "uidvalidity"],
    ),
}
_NEW_KEYS = {
    "ledger": (
        "uq_ledger_mailbox_id_folder_uidvalidity_generation_uid",
        ["mailbox_id", "folder", "uidvalidity", "generation", "uid"],
    ),
    "folder_cursors": (
        "uq_folder_cursors_mailbox_id_folder_uidvalidity_generation",
        ["mailbox_id", "folder", "uidvalidity", "generation"],
    ),
}


def upgrade() -> None:
    empty, no, zero = sa.text("''"), sa.false(), sa.text("0")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "mailbox_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("mailbox_id", sa.Integer(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id"], ["mailboxes.id"], name=op.f("fk_mailbox_events_mailbox_id_mailboxes")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailbox_events")),
    )
    op.create_index(op.f("ix_mailbox_events_mailbox_id"), "mailbox_events", ["mailbox_id"])
    op.create_table(
        "thread_ids",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("mailbox_id", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Integer(), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["mailbox_id"], ["mailboxes.id"], name=op.f("fk_thread_ids_mailbox_id_mailboxes")
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_thread_ids_conversation_id_conversations"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_thread_ids")),
        sa.UniqueConstraint(
            "mailbox_id",
            "message_id",
            "conversation_id",
            name=op.f("uq_thread_ids_mailbox_id_message_id_conversation_id"),
        ),
    )
    op.create_index(op.f("ix_thread_ids_conversation_id"), "thread_ids", ["conversation_id"])
    with op.batch_alter_table("mailboxes") as table:
        for name, value in (("auth", "'password'"), ("older", "'open'"), ("attachments", "'keep'")):
            table.add_column(sa.Column(name, sa.String(), nullable=False, server_default=sa.text(value)))
        for name in ("oauth_encrypted", "paused_reason"):
            table.add_column(sa.Column(name, sa.Text(), nullable=False, server_default=empty))
        table.add_column(sa.Column("oauth", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
        table.add_column(sa.Column("addresses", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
        for name in ("removed_at", "reconcile_at"):
            table.add_column(sa.Column(name, moment, nullable=True))
    with op.batch_alter_table("folder_cursors") as table:
        table.add_column(sa.Column("generation", sa.Integer(), nullable=False, server_default=zero))
        for name in ("backfill_uid", "older_uid"):
            table.add_column(sa.Column(name, sa.BigInteger(), nullable=False, server_default=zero))
        for name in ("uidnext", "highest_modseq"):
            table.add_column(sa.Column(name, sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("total", sa.Integer(), nullable=True))
        table.add_column(sa.Column("reread", sa.Boolean(), nullable=False, server_default=no))
        for name in ("since", "missing_since"):
            table.add_column(sa.Column(name, moment, nullable=True))
    # Folders that are read already have no backfill.
    op.execute("UPDATE folder_cursors SET backfill_uid = first_uid, older_uid = first_uid")
    with op.batch_alter_table("raw_emails") as table:
        table.add_column(sa.Column("left", sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
    with op.batch_alter_table("ledger") as table:
        table.add_column(sa.Column("generation", sa.Integer(), nullable=False, server_default=zero))
    _swap_keys(_KEYS, _NEW_KEYS)
    with op.batch_alter_table("conversations") as table:
        table.add_column(sa.Column("subject_key", sa.Text(), nullable=False, server_default=empty))
        table.add_column(sa.Column("merged_into", sa.Integer(), nullable=True))
        table.add_column(sa.Column("participants", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
        table.add_column(sa.Column("answered_at", moment, nullable=True))
        table.create_index(
            "ix_conversations_subject", ["mailbox_id", "customer_address", "subject_key"], unique=False
        )
    with op.batch_alter_table("emails") as table:
        table.add_column(sa.Column("language", sa.String(), nullable=False, server_default=empty))
        table.add_column(sa.Column("backfill", sa.Boolean(), nullable=False, server_default=no))
        table.drop_index("ix_emails_ready")
        table.create_index("ix_emails_ready", ["work_state", "backfill", "received_at", "id"], unique=False)
    _fill_thread_keys()


def downgrade() -> None:
    with op.batch_alter_table("emails") as table:
        table.drop_index("ix_emails_ready")
        table.create_index("ix_emails_ready", ["work_state", "received_at", "id"], unique=False)
        for name in ("language", "backfill"):
            table.drop_column(name)
    # What was merged has no mail of its own left: without `merged_into` it is done.
    op.execute("UPDATE conversations SET state = 'done', done_at = updated_at WHERE state = 'merged'")
    with op.batch_alter_table("conversations") as table:
        table.drop_index("ix_conversations_subject")
        for name in ("subject_key", "merged_into", "participants", "answered_at"):
            table.drop_column(name)
    # Rows of earlier generations would break the old keys; their emails stay, as sightings do.
    op.execute("DELETE FROM dead_letters WHERE ledger_id IN (SELECT id FROM ledger WHERE generation > 0)")
    op.execute("DELETE FROM ledger WHERE generation > 0")
    op.execute("DELETE FROM folder_cursors WHERE generation > 0")
    _swap_keys(_NEW_KEYS, _KEYS)
    with op.batch_alter_table("ledger") as table:
        table.drop_column("generation")
    with op.batch_alter_table("raw_emails") as table:
        table.drop_column("left")
    with op.batch_alter_table("folder_cursors") as table:
        for name in (
            "generation",
            "backfill_uid",
            "older_uid",
            "uidnext",
            "highest_modseq",
            "total",
            "reread",
            "since",
            "missing_since",
        ):
            table.drop_column(name)
    with op.batch_alter_table("mailboxes") as table:
        for name in (
            "auth",
            "older",
            "attachments",
            "oauth_encrypted",
            "paused_reason",
            "oauth",
            "addresses",
            "removed_at",
            "reconcile_at",
        ):
            table.drop_column(name)
    op.drop_table("thread_ids")
    op.drop_table("mailbox_events")


def _swap_keys(old: dict[str, tuple[str, list[str]]], new: dict[str, tuple[str, list[str]]]) -> None:
    for name, (key, _) in old.items():
        with op.batch_alter_table(name) as table:
            table.drop_constraint(op.f(key), type_="unique")
            table.create_unique_constraint(op.f(new[name][0]), new[name][1])


def _fill_thread_keys() -> None:
    """Ids and subjects that new mail is told by, folded by the code that will look for them."""
    connection = op.get_bind()
    conversations = sa.table("conversations", sa.column("id"), sa.column("subject"), sa.column("subject_key"))
    keys = [
        {"row": id_, "key": subject_key(subject)}
        for id_, subject in connection.execute(sa.select(conversations.c.id, conversations.c.subject))
    ]
    if keys:
        statement = conversations.update().where(conversations.c.id == sa.bindparam("row"))
        connection.execute(statement.values(subject_key=sa.bindparam("key")), keys)
    columns = ("mailbox_id", "message_id", "conversation_id")
    emails = sa.table("emails", *(sa.column(name) for name in columns))
    thread_ids = sa.table("thread_ids", *(sa.column(name) for name in (*columns, "held")))
    held = {
        (mailbox_id, id_key(message_id), conversation_id)
        for mailbox_id, message_id, conversation_id in connection.execute(sa.select(emails))
        if conversation_id is not None and id_key(message_id)
    }
    if held:
        connection.execute(
            thread_ids.insert(),
            [{**dict(zip(columns, row, strict=True)), "held": True} for row in sorted(held)],
        )
