"""The desk in full: views, search, notes, presence, undo, roles by mailbox, second factors, tokens, webhooks.

Revision 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Minutes to the first answer, day and night. An admin changes them on the desk.
_SLA = {"urgent": 60, "high": 240, "normal": 1440, "low": 4320}

# One index for each list of the queue: what it is sorted by, and of what filters ask about that is not among it.
_LISTS = {
    "open": ("priority_rank", "waiting_since", "id"),
    "snoozed": ("snoozed_until", "id", "priority_rank", "waiting_since"),
    "answered": ("answered_at", "id", "priority_rank", "waiting_since"),
    "done": ("done_at", "id", "priority_rank", "waiting_since"),
}


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "sla_targets",
        sa.Column("priority", sa.String(), nullable=False),
        sa.Column("minutes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("priority", name=op.f("pk_sla_targets")),
    )
    op.create_table(
        "audit_checks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("entry_id", sa.Integer(), nullable=False),
        sa.Column("entry_hash", sa.String(), nullable=False),
        sa.Column("broken", sa.JSON(), nullable=False),
        sa.Column("began_at", moment, nullable=False),
        sa.Column("checked_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_checks")),
    )
    for name, indexed in (
        ("actor", ["actor", "id"]),
        ("action", ["action", "id"]),
        ("object", ["object", "id"]),
        ("at", ["at"]),
    ):
        op.create_index(f"ix_audit_{name}", "audit", indexed)
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("requests_encrypted", sa.Text(), nullable=False),
        sa.Column("briefs_encrypted", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("lease_token", sa.String(), nullable=False),
        sa.Column("lease_until", moment, nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trials")),
        sa.UniqueConstraint("key", name=op.f("uq_trials_key")),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("secret_encrypted", sa.Text(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("mailbox_ids", sa.JSON(), nullable=False),
        sa.Column("full", sa.Boolean(), nullable=False),
        sa.Column("old_secret_encrypted", sa.Text(), nullable=False),
        sa.Column("old_secret_until", moment, nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("disabled_at", moment, nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=False),
        sa.Column("num_failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", moment, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        sa.UniqueConstraint("name", name=op.f("uq_webhooks_name")),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=True),
        sa.Column("last_used_at", moment, nullable=True),
        sa.Column("revoked_at", moment, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_tokens_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_api_tokens_token_hash")),
    )
    with op.batch_alter_table("api_tokens") as table:
        table.create_index(table.f("ix_api_tokens_user_id"), ["user_id"], unique=False)

    op.create_table(
        "identities",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_identities_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_identities_issuer_subject")),
    )
    with op.batch_alter_table("identities") as table:
        table.create_index(table.f("ix_identities_user_id"), ["user_id"], unique=False)

    op.create_table(
        "mailbox_access",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("mailbox_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["mailbox_id"], ["mailboxes.id"], name=op.f("fk_mailbox_access_mailbox_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_mailbox_access_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailbox_access")),
        sa.UniqueConstraint("user_id", "mailbox_id", name=op.f("uq_mailbox_access_user_id_mailbox_id")),
    )
    with op.batch_alter_table("mailbox_access") as table:
        table.create_index(table.f("ix_mailbox_access_mailbox_id"), ["mailbox_id"], unique=False)

    op.create_table(
        "mailbox_drafts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("secret_encrypted", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_mailbox_drafts_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailbox_drafts")),
        sa.UniqueConstraint("key", name=op.f("uq_mailbox_drafts_key")),
    )
    op.create_table(
        "roll_back_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("promotion_id", sa.Integer(), nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("finished_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["promotion_id"], ["promotions.id"], name=op.f("fk_roll_back_requests_promotion_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roll_back_requests")),
    )
    op.create_table(
        "views",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("query", sa.String(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_views_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_views")),
    )
    with op.batch_alter_table("views") as table:
        table.create_index(table.f("ix_views_user_id"), ["user_id"], unique=False)

    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("webhook_id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", moment, nullable=False),
        sa.Column("lease_token", sa.String(), nullable=False),
        sa.Column("lease_until", moment, nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("replay_of", sa.Integer(), nullable=True),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("finished_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    with op.batch_alter_table("webhook_deliveries") as table:
        table.create_index(table.f("ix_webhook_deliveries_event_id"), ["event_id"], unique=False)
        table.create_index("ix_webhook_deliveries_ready", ["state", "not_before", "id"], unique=False)
        table.create_index("ix_webhook_deliveries_subject", ["subject", "state"], unique=False)
        table.create_index("ix_webhook_deliveries_webhook", ["webhook_id", "state", "id"], unique=False)

    op.create_table(
        "activities",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("conversation_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("group", sa.String(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("undone_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_activities_conversation_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_activities_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_activities")),
    )
    with op.batch_alter_table("activities") as table:
        table.create_index(table.f("ix_activities_conversation_id"), ["conversation_id"], unique=False)
        table.create_index(table.f("ix_activities_group"), ["group"], unique=False)

    op.create_table(
        "idempotency_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request_hash", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.ForeignKeyConstraint(["token_id"], ["api_tokens.id"], name=op.f("fk_idempotency_keys_token_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_keys")),
        sa.UniqueConstraint("token_id", "key", name=op.f("uq_idempotency_keys_token_id_key")),
    )
    with op.batch_alter_table("idempotency_keys") as table:
        table.create_index(table.f("ix_idempotency_keys_created_at"), ["created_at"], unique=False)

    op.create_table(
        "notes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("conversation_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("deleted_at", moment, nullable=True),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_notes_conversation_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_notes_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notes")),
    )
    with op.batch_alter_table("notes") as table:
        table.create_index(table.f("ix_notes_conversation_id"), ["conversation_id"], unique=False)

    op.create_table(
        "presences",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("conversation_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("editing", sa.String(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("seen_at", moment, nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name=op.f("fk_presences_conversation_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_presences_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_presences")),
        sa.UniqueConstraint("conversation_id", "user_id", name=op.f("uq_presences_conversation_id_user_id")),
    )
    with op.batch_alter_table("presences") as table:
        table.create_index(table.f("ix_presences_seen_at"), ["seen_at"], unique=False)

    op.create_table(
        "search_pending",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("email_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["email_id"], ["emails.id"], name=op.f("fk_search_pending_email_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_pending")),
    )
    with op.batch_alter_table("categories") as table:
        table.add_column(sa.Column("merged_into", sa.String(), nullable=False, server_default=sa.text("''")))

    with op.batch_alter_table("confirmations") as table:
        table.add_column(sa.Column("undone_at", moment, nullable=True))

    with op.batch_alter_table("conversations") as table:
        table.add_column(sa.Column("snoozed_until", moment, nullable=True))
        table.add_column(sa.Column("assigned_to", sa.Integer(), nullable=True))
        table.add_column(sa.Column("in_doubt", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.drop_index(table.f("ix_conversations_mailbox_id"))
        table.drop_index("ix_conversations_queue")
        table.create_index("ix_conversations_mailbox", ["mailbox_id", "state"], unique=False)
        table.create_foreign_key(table.f("fk_conversations_assigned_to"), "users", ["assigned_to"], ["id"])

    with op.batch_alter_table("corrections") as table:
        table.add_column(sa.Column("undone_at", moment, nullable=True))

    with op.batch_alter_table("login_sessions") as table:
        table.add_column(sa.Column("pending", sa.Boolean(), nullable=False, server_default=sa.false()))
        table.add_column(sa.Column("address", sa.String(), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("browser", sa.String(), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("seen_at", moment, nullable=True))
        table.add_column(sa.Column("verified_at", moment, nullable=True))

    with op.batch_alter_table("mailboxes") as table:
        table.add_column(sa.Column("sent_folder", sa.String(), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("vetted", sa.Boolean(), nullable=False, server_default=sa.false()))

    with op.batch_alter_table("folder_cursors") as table:
        table.add_column(sa.Column("ledger_exists", sa.Integer(), nullable=True))

    with op.batch_alter_table("training_runs") as table:
        table.add_column(sa.Column("losses", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))

    with op.batch_alter_table("users") as table:
        table.add_column(sa.Column("all_mailboxes", sa.Boolean(), nullable=False, server_default=sa.true()))
        table.add_column(sa.Column("totp_encrypted", sa.Text(), nullable=False, server_default=sa.text("''")))
        table.add_column(sa.Column("totp_step", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        table.add_column(
            sa.Column("recovery_hashes", sa.JSON(), nullable=False, server_default=sa.text("'[]'"))
        )

    for column in ("seen_at", "verified_at"):
        op.execute(f"UPDATE login_sessions SET {column} = created_at")  # noqa: S608 - our own names
    with op.batch_alter_table("login_sessions") as table:
        table.alter_column("seen_at", existing_type=moment, nullable=False)
        table.alter_column("verified_at", existing_type=moment, nullable=False)
    op.execute("UPDATE conversations SET state = 'answered' WHERE state = 'open' AND answered_at IS NOT NULL")
    op.execute("UPDATE conversations SET in_doubt = TRUE WHERE CAST(needs_human AS TEXT) <> '[]'")
    for state, columns in _LISTS.items():
        condition = sa.text(f"state = '{state}'")
        op.create_index(
            f"ix_conversations_{state}",
            "conversations",
            [*columns, "mailbox_id", "assigned_to", "category", "in_doubt", "state"],
            unique=False,
            sqlite_where=condition,
            postgresql_where=condition,
        )
    merged = sa.text("merged_into IS NOT NULL")
    op.create_index(
        "ix_conversations_merged_into",
        "conversations",
        ["merged_into"],
        unique=False,
        sqlite_where=merged,
        postgresql_where=merged,
    )
    targets = sa.table("sla_targets", sa.column("priority"), sa.column("minutes"))
    op.bulk_insert(targets, [{"priority": name, "minutes": minutes} for name, minutes in _SLA.items()])
    _make_search_tables()
    op.execute("INSERT INTO search_pending (email_id) SELECT id FROM emails ORDER BY id")


def _make_search_tables() -> None:
    """Full text by email. The mail never changes, so that SQLite need not keep its text twice; what a brief says does."""
    if op.get_bind().dialect.name == "sqlite":
        # What is written is cut into words and folded already (store/search_words.py).
        words = 'tokenize = "unicode61 remove_diacritics 0"'
        op.execute(
            f"CREATE VIRTUAL TABLE email_search USING fts5(subject, sender, body, content = '', {words})"
        )
        op.execute(f"CREATE VIRTUAL TABLE brief_search USING fts5(headline, summary, {words})")
        op.execute("CREATE TABLE search_words (word TEXT PRIMARY KEY) WITHOUT ROWID")
        return
    op.execute('CREATE TABLE search_words (word text COLLATE "C" PRIMARY KEY)')
    for name in ("email_search", "brief_search"):
        op.execute(
            f"CREATE TABLE {name} (email_id integer PRIMARY KEY REFERENCES emails (id) ON DELETE CASCADE, document tsvector NOT NULL)"
        )
        op.execute(f"CREATE INDEX ix_{name}_document ON {name} USING gin (document)")


def downgrade() -> None:
    for name in ("email_search", "brief_search", "search_words"):
        op.execute(f"DROP TABLE {name}")
    for name in ("actor", "action", "object", "at"):
        op.drop_index(f"ix_audit_{name}", "audit")
    op.execute("UPDATE conversations SET state = 'open' WHERE state IN ('answered', 'snoozed')")
    with op.batch_alter_table("users") as table:
        for name in ("all_mailboxes", "totp_encrypted", "totp_step", "recovery_hashes"):
            table.drop_column(name)
    with op.batch_alter_table("training_runs") as table:
        table.drop_column("losses")
    with op.batch_alter_table("folder_cursors") as table:
        table.drop_column("ledger_exists")
    with op.batch_alter_table("mailboxes") as table:
        table.drop_column("vetted")
        table.drop_column("sent_folder")
    with op.batch_alter_table("login_sessions") as table:
        for name in ("pending", "address", "browser", "seen_at", "verified_at"):
            table.drop_column(name)
    for name in ("corrections", "confirmations"):
        with op.batch_alter_table(name) as table:
            table.drop_column("undone_at")
    with op.batch_alter_table("categories") as table:
        table.drop_column("merged_into")
    with op.batch_alter_table("conversations") as table:
        for state in ("mailbox", "merged_into", *_LISTS):
            table.drop_index(f"ix_conversations_{state}")
        table.create_index("ix_conversations_queue", ["state", "priority_rank", "waiting_since", "id"])
        table.create_index("ix_conversations_mailbox_id", ["mailbox_id"])
        table.drop_constraint("fk_conversations_assigned_to", type_="foreignkey")
        table.drop_column("in_doubt")
        table.drop_column("assigned_to")
        table.drop_column("snoozed_until")
    for name in (
        "search_pending",
        "presences",
        "notes",
        "idempotency_keys",
        "activities",
        "webhook_deliveries",
        "views",
        "roll_back_requests",
        "mailbox_drafts",
        "mailbox_access",
        "identities",
        "api_tokens",
        "webhooks",
        "trials",
        "sla_targets",
        "audit_checks",
    ):
        op.drop_table(name)
