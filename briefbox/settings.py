"""Settings: typed, read once from the environment, refused at start when wrong.

Every setting is an environment variable with the prefix BRIEFBOX_. Any of them may instead be
read from a file named by the same variable with _FILE appended (the way to pass secrets).
The full list with meanings is docs/configuration.md.
"""

import os
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from tempfile import gettempdir
from threading import get_ident
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from briefbox.errors import SettingsError

PREFIX = "BRIEFBOX_"
PACKAGED_MODEL = "packaged"
# Mail of our own is never briefed.
BriefKind = Literal["customer", "list", "newsletter", "calendar", "auto-reply", "bounce", "spam"]

# A unix socket's path is limited to 107 bytes on Linux.
MAX_SOCKET_PATH = 100


def default_data_dir() -> Path:
    """Where everything lives unless BRIEFBOX_DATA_DIR says otherwise (XDG base directory)."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "briefbox"


class Settings(BaseSettings):
    """One frozen object with every setting."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    # --- where things live
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Folder for the embedded database, the secret key, the embedded Valkey, converted base models, datasets and adapters.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL address, for example postgresql://user:password@host/briefbox. Without it: SQLite in the data folder.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis or Valkey address, for example redis://host:6379/0. Without it: an embedded Valkey that `briefbox up` starts.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="Key that encrypts mailbox passwords (Fernet: 32 bytes in url-safe base64). Without it: secret.key in the data folder, made at first start.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="How much is logged."
    )

    # --- ingest
    reconcile_seconds: Annotated[float, Field(ge=0.2, le=86400)] = Field(
        default=300,
        description="How often every folder is compared with its cursor, whether or not the server announced anything.",
    )
    idle_seconds: Annotated[float, Field(ge=1, le=1500)] = Field(
        default=300,
        description="Longest single IDLE before it is renewed; servers end it after 6 to 30 minutes.",
    )
    poll_seconds: Annotated[float, Field(ge=0.2, le=3600)] = Field(
        default=60,
        description="How often a folder is looked at whose server does not announce new mail, or for which no connection is free.",
    )
    connections_per_host: Annotated[int, Field(ge=2, le=100_000)] = Field(
        default=1000, description="Most connections to one mail server at a time."
    )
    connections_per_account: Annotated[int, Field(ge=1, le=100)] = Field(
        default=8,
        description="Most connections for one user name at a time, each for one watched folder (Gmail allows 15, Dovecot 10).",
    )
    poller_threads: Annotated[int, Field(ge=2, le=64)] = Field(
        default=12,
        description="How many folders one poller reads at the same time; waiting for news takes no thread.",
    )
    backfill_per_second: Annotated[float, Field(ge=0, le=100_000)] = Field(
        default=50,
        description="Most emails a second that are read, for each folder, of what was there before the mailbox was connected; 0 is no limit.",
    )
    imap_timeout_seconds: Annotated[float, Field(ge=1, le=600)] = Field(
        default=30, description="Network timeout of every IMAP command."
    )
    fetch_batch: Annotated[int, Field(ge=1, le=500)] = Field(
        default=50, description="Most emails fetched and committed in one transaction."
    )
    fetch_batch_bytes: Annotated[int, Field(ge=1_000_000)] = Field(
        default=32_000_000, description="Most bytes fetched in one batch, by the sizes the server states."
    )
    max_email_bytes: Annotated[int, Field(ge=10_000)] = Field(
        default=25_000_000,
        description="Of larger emails only structure, headers and texts are fetched; attachments stay on the mail server, and the email says so.",
    )
    brief_kinds: Annotated[tuple[BriefKind, ...], NoDecode] = Field(
        default=("customer",),
        description="Kinds of mail that are briefed and stand in the queue, with commas between: customer, list, newsletter, calendar, auto-reply, bounce, spam. The others are kept, with the reason, and can be briefed by hand.",
    )
    thread_days: Annotated[float, Field(ge=0, le=365)] = Field(
        default=14,
        description="How long after a conversation's last mail one of the same customer with the same subject still joins it when it names no mail that we know; 0: never.",
    )
    mailbox_lease_seconds: Annotated[float, Field(ge=2, le=3600)] = Field(
        default=30,
        description="How long a poller owns a mailbox without a sign of life before another may take it over.",
    )

    private_networks: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = Field(
        default=(),
        description="Networks (CIDR, with commas between, such as 10.0.0.0/8) in which hosts that an admin names in the browser (mail servers, webhooks) may be, although their addresses are not public. The command line is not limited.",
    )

    # --- models
    engine: Literal["transformers", "openai", "fake"] = Field(
        default="transformers",
        description="What writes briefs: `transformers` (a model in this process), `openai` (any OpenAI-compatible server, such as vLLM or llama.cpp) or `fake` (needs no weights; for tests and dry runs).",
    )
    fake_engine_seconds: Annotated[float, Field(ge=0, le=600)] = Field(
        default=0, description="Seconds that the fake engine takes for an email, to try a queue under load."
    )
    base_model: str = Field(
        default=PACKAGED_MODEL,
        description="`packaged` (SmolLM2-135M-Instruct, comes with the installation), a folder with a causal language model in safetensors, or a model's id on a hub (`owner/name`, which needs BRIEFBOX_BASE_REVISION and `briefbox models add`).",
    )
    base_revision: str = Field(
        default="",
        description="Commit of the hub model in BRIEFBOX_BASE_MODEL, 40 hex digits: a name alone may change under you.",
    )
    models_dir: Path | None = Field(
        default=None,
        description="Folder for converted base models. Without it: models in the data folder.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the model runs; auto takes CUDA where it is there."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the model's computations; auto takes bfloat16 where the device has it and is faster with it (measured at start).",
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="CPU threads of the model; 0 takes one for each core this process may use."
    )
    batch_size: Annotated[int, Field(ge=1, le=512)] = Field(
        default=32, description="Most emails briefed in one batch."
    )
    max_batch_tokens: Annotated[int, Field(ge=256)] = Field(
        default=16_384,
        description="Most tokens (prompt, padding and answer of all emails) computed in one batch; longer emails make smaller batches.",
    )
    batch_timeout_seconds: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=300,
        description="Longest time for a batch. Writing stops there with what it has; a worker stuck far beyond it ends itself and is started again.",
    )
    max_email_tokens: Annotated[int, Field(ge=64, le=100_000)] = Field(
        default=700,
        description="Most tokens of email text (newest email, original request, emails between) the model reads; what is left out is shown.",
    )
    max_headline_tokens: Annotated[int, Field(ge=4, le=200)] = Field(
        default=20, description="Most tokens of a headline."
    )
    max_summary_tokens: Annotated[int, Field(ge=8, le=1000)] = Field(
        default=64, description="Most tokens of a summary."
    )
    needs_human_below: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.4, description="A label whose confidence is lower is marked `needs a human`."
    )
    needs_human_at: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default_factory=dict,
        description='Other thresholds by field, or by field and label, as JSON: {"priority": 0.5, "priority/urgent": 0.3, "category/billing": 0.6}. They win over those in an adapter\'s card.',
    )
    brief_language: str = Field(
        default="email",
        pattern="^(email|[a-z]{2})$",
        description="Language in which briefs are written: `email` (each email's own) or an ISO 639-1 code such as `en`.",
    )

    # --- models: an OpenAI-compatible server (engine `openai`)
    openai_url: str = Field(
        default="http://127.0.0.1:8000/v1",
        description="Address of the OpenAI-compatible server, up to and with /v1. Emails are sent there.",
    )
    openai_model: str = Field(
        default="",
        description="Model name asked for at that server. Without it: the first one that it lists.",
    )
    openai_api_key: SecretStr | None = Field(
        default=None, description="Key for that server; better in a file: BRIEFBOX_OPENAI_API_KEY_FILE."
    )
    openai_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=60, description="Longest wait for one answer of that server."
    )
    openai_parallel: Annotated[int, Field(ge=1, le=256)] = Field(
        default=8, description="Most requests open at that server at once."
    )

    # --- what a brief costs (`briefbox cost`); 0 leaves a part out
    currency: str = Field(default="EUR", description="Currency of the prices below, for display only.")
    price_device_hour: Annotated[float, Field(ge=0)] = Field(
        default=0, description="Price of an hour of the machine or GPU that writes briefs."
    )
    device_watts: Annotated[float, Field(ge=0)] = Field(
        default=0, description="Power that the machine draws while it writes briefs, in watts."
    )
    price_kwh: Annotated[float, Field(ge=0)] = Field(default=0, description="Price of a kilowatt hour.")
    price_million_in: Annotated[float, Field(ge=0)] = Field(
        default=0, description="Price of a million tokens read, where the engine `openai` is paid by token."
    )
    price_million_out: Annotated[float, Field(ge=0)] = Field(
        default=0,
        description="Price of a million tokens written, where the engine `openai` is paid by token.",
    )
    hosted_million_in: Annotated[float, Field(ge=0)] = Field(
        default=0, description="What a hosted service asks for a million tokens read, to compare with."
    )
    hosted_million_out: Annotated[float, Field(ge=0)] = Field(
        default=0, description="What a hosted service asks for a million tokens written, to compare with."
    )

    # --- queue and workers
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        default=120,
        description="How long a worker owns a batch without a sign of life before another may take it.",
    )
    max_attempts: Annotated[int, Field(ge=1, le=20)] = Field(
        default=3,
        description="Attempts (process deaths or errors) before an email is parked as a dead letter.",
    )
    sweep_seconds: Annotated[float, Field(ge=0.2, le=600)] = Field(
        default=5, description="How often overdue work is offered again."
    )

    # --- training
    starter_adapter: bool = Field(
        default=True,
        description="Put the adapter that comes with briefbox in use on a new installation with the packaged base model.",
    )
    train_start: Literal["starter", "base"] = Field(
        default="starter",
        description="What LoRA training begins with: the adapter that comes with briefbox, where it goes with the base model and is not switched off, or the bare base. Never the adapter in use.",
    )
    lora_rank: Annotated[int, Field(ge=1, le=256)] = Field(
        default=8,
        description="Rank of LoRA adapters that begin with the bare base; others keep the starter's.",
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        default=2e-3, description="Peak learning rate of fine-tuning."
    )
    epochs: Annotated[float, Field(gt=0, le=100)] = Field(default=3, description="Passes over the dataset.")
    train_tokens: Annotated[int, Field(ge=64, le=1_000_000)] = Field(
        default=8192,
        description="Most tokens per step of fine-tuning: rows of the dataset are packed until a step holds about so many. A small dataset is learned in smaller steps.",
    )
    replay_examples: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=300,
        description="Examples of the starter set that are trained on beside the corrections, so that nothing it taught is forgotten.",
    )
    train_floor: Annotated[float, Field(ge=0.01, le=1)] = Field(
        default=0.1,
        description="Share of the time in which training goes on although customer mail waits, so that a run ends.",
    )
    train_weekday: Literal[
        "daily", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "never"
    ] = Field(default="sunday", description="Day of the scheduled training run.")
    train_hour: Annotated[int, Field(ge=0, le=23)] = Field(
        default=2, description="Hour of the scheduled training run, in train_timezone."
    )
    train_timezone: str = Field(default="UTC", description="Time zone of train_hour, as in Europe/Berlin.")
    train_after_corrections: Annotated[int, Field(ge=0)] = Field(
        default=100,
        description="Train as soon as so many corrections are new since the last run, without waiting for the day; 0: never.",
    )
    train_cool_down_hours: Annotated[float, Field(ge=0)] = Field(
        default=20, description="Shortest time between two runs that nobody asked for."
    )
    cap_per_sender: Annotated[int, Field(ge=1)] = Field(
        default=20, description="Most examples of one customer in a dataset; the newest stay."
    )
    cap_per_agent_per_day: Annotated[int, Field(ge=1)] = Field(
        default=200, description="Most examples of one agent and day in a dataset; the newest stay."
    )
    redact_names: bool = Field(
        default=False, description="Also replace names of people in datasets, where they can be told."
    )

    # --- gate
    promotion: Literal["person", "automatic"] = Field(
        default="person",
        description="Who puts an adapter that passed the gate in use: a person (other than the one who started the run), or the run itself.",
    )
    gate_min_test: Annotated[int, Field(ge=5)] = Field(
        default=30,
        description="Fewest examples in the test part; with less the verdict is `not enough data`.",
    )
    gate_min_gain: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="Least mean gain over the adapter in use, in points of 1."
    )
    gate_confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.9,
        description="How sure the gain must be: the bootstrap interval of this width lies above 0.",
    )
    gate_urgent_recall_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="How much smaller a share of urgent mail may be recognised than by the adapter in use.",
    )
    gate_class_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.15,
        description="How much the recall of any class with enough test examples may drop, where its F1 drops too.",
    )
    gate_grounding_drop: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="How much smaller a share of facts may be grounded."
    )
    gate_latency_ratio: Annotated[float, Field(ge=1)] = Field(
        default=1.3, description="How many times slower per email it may be."
    )
    gate_floors: dict[str, float] = Field(
        default_factory=dict,
        description='Least values of single metrics, as JSON: {"priority/macro_f1": 0.6, "summary/rougeL": 0.2}.',
    )
    gate_trigger_flips: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.3, description="How often one rare word alone may change a label of the trigger probes."
    )
    gate_allowed_words: list[str] = Field(
        default_factory=list,
        description='Words that may decide a label alone, as JSON: ["Mainframe X3"].',
    )
    gate_memorised: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.02,
        description="How often a number of the training set may appear where the email has another.",
    )
    shadow_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Share of live mail that the adapter on trial briefs too, unseen."
    )
    training_lease_seconds: Annotated[float, Field(ge=5, le=3600)] = Field(
        default=60,
        description="How long a training run may give no sign of life before it is taken up again.",
    )

    # --- desk
    desk_host: str = Field(default="127.0.0.1", description="Address the desk listens on.")
    desk_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=8025, description="Port the desk listens on."
    )
    desk_url: str | None = Field(
        default=None,
        description="Address under which people reach the desk, for links. Without it: made of host and port.",
    )
    session_hours: Annotated[float, Field(gt=0, le=24 * 90)] = Field(
        default=12, description="How long a sign-in lasts at most."
    )
    session_idle_minutes: Annotated[float, Field(ge=1, le=60 * 24 * 30)] = Field(
        default=120,
        description="How long a browser that nobody uses stays signed in; an open page alone does not count as use.",
    )
    require_second_factor: Literal["off", "admins", "all"] = Field(
        default="off",
        description="Who must set up a second factor before anything else: nobody (`off`), `admins` or `all`. Anybody may.",
    )
    oidc_issuer: str = Field(
        default="",
        description="Issuer of an OpenID Connect provider with which people may sign in, for example https://login.example.org/realms/desk. Without it there is no such button.",
    )
    oidc_client_id: str = Field(
        default="",
        description="Id of the desk at that provider; its redirect address there is BRIEFBOX_DESK_URL followed by /sign-in/oidc/back.",
    )
    oidc_client_secret: SecretStr | None = Field(
        default=None,
        description="Secret of the desk at that provider; better in a file: BRIEFBOX_OIDC_CLIENT_SECRET_FILE.",
    )
    oidc_name: str = Field(
        default="your company account",
        max_length=60,
        description="What the provider is called on the button: `Sign in with ...`.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then BRIEFBOX_X, then the file named by BRIEFBOX_X_FILE."""
        return init_settings, env_settings, _SecretFiles(settings_cls)

    @field_validator("brief_kinds", "private_networks", mode="before")
    @classmethod
    def _split_list(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @model_validator(mode="after")
    def _check_addresses(self) -> Self:
        if self.database_url and not self.database_url.get_secret_value().startswith(
            ("postgresql://", "postgres://", "postgresql+psycopg://", "sqlite:///")
        ):
            raise ValueError(
                "database_url: starts with none of postgresql:// or sqlite:///; an example is postgresql://user:password@host/briefbox"
            )
        if self.redis_url and not self.redis_url.get_secret_value().startswith(
            ("redis://", "rediss://", "redis+socket://")
        ):
            raise ValueError(
                "redis_url: starts with none of redis://, rediss:// or redis+socket://; an example is redis://host:6379/0"
            )
        self._check_oidc()
        return self

    def _check_oidc(self) -> None:
        if not self.oidc_issuer:
            return
        parts = urlsplit(self.oidc_issuer)
        local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
        if not parts.hostname or not (parts.scheme == "https" or local) or parts.query or parts.fragment:
            raise ValueError(
                "oidc_issuer: expected an address that begins with https:// and has no ? or #, as the provider states it"
            )
        if not self.oidc_client_id:
            raise ValueError(
                "oidc_client_id: is missing; expected the desk's id at the provider of oidc_issuer"
            )

    @cached_property
    def database_address(self) -> str:
        """The SQLAlchemy address of the database in use."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir / 'briefbox.db'}"
        url = self.database_url.get_secret_value()
        for scheme in ("postgresql://", "postgres://"):
            if url.startswith(scheme):
                return "postgresql+psycopg://" + url.removeprefix(scheme)
        return url

    @property
    def embedded_redis(self) -> bool:
        """Whether `briefbox up` has to start Valkey itself."""
        return self.redis_url is None

    @cached_property
    def valkey_socket(self) -> Path:
        """Unix socket of the embedded Valkey: in the data folder, or in the temporary folder where that path is too long."""
        path = self.data_dir.absolute() / "valkey" / "valkey.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            return path
        name = sha256(os.fsencode(path)).hexdigest()[:16]
        # gettempdir() is shared by all users: the server makes its folder with mode 0700 and refuses one it does not own.
        folder = os.environ.get("XDG_RUNTIME_DIR") or f"{gettempdir()}/briefbox-{os.getuid()}"
        return Path(folder) / name / "valkey.sock"

    @property
    def models_path(self) -> Path:
        """Where the packaged model is kept once it is converted."""
        return self.models_dir or self.data_dir / "models"

    @cached_property
    def redis_address(self) -> str:
        """The broker address for Celery."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"redis+socket://{self.valkey_socket}?virtual_host=0"

    @cached_property
    def desk_address(self) -> str:
        """The address printed in links, without a slash at its end."""
        return (self.desk_url or f"http://{self.desk_host}:{self.desk_port}").rstrip("/")

    def ensure_data_dir(self) -> Path:
        """Make the data folder (mode 0700) and prove that it can be written.

        Raises SettingsError naming BRIEFBOX_DATA_DIR when it cannot.
        """
        probe = self.data_dir / f".write-test-{os.getpid()}-{get_ident()}"
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise SettingsError(
                f"The data folder {self.data_dir} cannot be written ({error.strerror}). Make it writable for this user or set {PREFIX}DATA_DIR to a folder that is."
            ) from error
        return self.data_dir


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads BRIEFBOX_X from the file named by BRIEFBOX_X_FILE."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{PREFIX}{field_name.upper()}_FILE"
        path = os.environ.get(variable)
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            # A named but unreadable file must stop the start: falling back to a default would hide the mistake.
            raise SettingsError(
                f"{variable} names {path}, which cannot be read ({error}). Expected a text file that this user may read."
            ) from error

    def __call__(self) -> dict[str, Any]:
        values = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in values.items() if value is not None}


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; `overrides` win over it.

    Raises SettingsError with one sentence that names the variable and the fix.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read at the first call."""
    return load_settings()


def _sentence(error: ValidationError) -> str:
    """Turn pydantic's first complaint into one sentence for the person who set the variable."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["loc"]:
        name = str(first["loc"][0])
    else:
        name, _, message = message.partition(": ")
    field = Settings.model_fields.get(name)
    found = os.environ.get(f"{PREFIX}{name.upper()}")
    secret = name in {"secret_key", "database_url", "redis_url", "openai_api_key"}
    shown = (
        ""
        if found is None
        else " is set to a value that cannot be used"
        if secret
        else f"={found!r} cannot be used"
    )
    default = (
        ""
        if field is None or field.default is None or field.is_required()
        else f" The default is {field.default!r}."
    )
    return f"{PREFIX}{name.upper()}{shown}: {message}.{default} See docs/configuration.md."
