"""`briefbox demo --loop`: the learning loop from end to end, on the demo's parts.

    emails -> briefs -> corrections (over HTTP) -> harvest -> training -> gate -> promotion -> a better brief -> roll-back

A desk with a rule of its own is simulated: here, whatever is about a delivery or a return is urgent, and all else is low. The
model can't know that. It learns it from some sixty judged emails, through the same processes as in earnest; only the
starter examples beside them and the test part that the gate asks for are fewer, so that it takes minutes.
"""

import re
import subprocess
import sys
import time
from collections import Counter
from email.message import EmailMessage
from email.utils import make_msgid
from typing import Any

import httpx
from imapclient import IMAPClient
from sqlmodel import col, select

from briefbox.cli.demo import INBOX_USER, Demo, DemoRun
from briefbox.cli.output import console
from briefbox.errors import BriefboxError
from briefbox.queue import hints_for
from briefbox.schemas import Example
from briefbox.settings import PREFIX
from briefbox.store import adapters
from briefbox.store import training as store
from briefbox.tables import Adapter, Brief, Conversation, Email, TrainingRun

RULE = {"shipping": "urgent", "returns": "urgent"}
ELSE = "low"
# What is small here so that two cores need minutes; everything else is as in earnest.
SETTINGS = {
    "REPLAY_EXAMPLES": "40",
    "GATE_MIN_TEST": "10",
    "BATCH_SIZE": "16",
    "TRAIN_AFTER_CORRECTIONS": "0",
}
MAX_WORDS = 110
PROBE = "Parcel shows as delivered, but there is nothing here"
PROBE_TEXT = "Good morning, your courier says that my parcel {} was handed over on Tuesday. Nobody was at home and none of the neighbours has it. Where is it?"


class Loop:
    """One run of the loop."""

    def __init__(self, demo: Demo, *, num_emails: int, timeout: float) -> None:
        """`timeout` in seconds is for each step."""
        self.demo, self.num_emails, self.timeout = demo, num_emails, timeout
        self._sent = 0
        demo.environment.update({PREFIX + name: value for name, value in SETTINGS.items()})

    def show(self) -> str:
        """Everything in order. Returns what went wrong, or ""."""
        try:
            with (
                self.demo.running() as run,
                httpx.Client(
                    base_url=run.settings.desk_address, follow_redirects=True, timeout=30, trust_env=False
                ) as browser,
            ):
                browser.post(run.link.removeprefix(run.settings.desk_address)).raise_for_status()
                problem = self._steps(run, browser)
        except (BriefboxError, httpx.HTTPError) as error:
            problem = str(error)
        if problem:
            console.print(
                f"FAILED: {problem}. Logs: {self.demo.data_dir / 'logs'}", style="red", soft_wrap=True
            )
            return problem
        console.print(
            "PASSED: corrected, harvested, trained, judged, put in use, better, and rolled back.",
            style="green",
        )
        self.demo.clean_up()
        return ""

    def _steps(self, run: "DemoRun", browser: httpx.Client) -> str:
        # 1. What the model says before it knows this desk.
        emails = _emails(self.num_emails)
        _heading(f"1. {len(emails)} emails arrive and are briefed by {_in_use(run)}")
        truths = {self._send(run, e.input.subject, e.input.text): e for e in emails}
        first = self._send(run, PROBE, PROBE_TEXT.format("LK-2041"))
        briefs = self._await_briefs(run, {*truths, first})
        before = briefs[first]
        # 2. Agents correct over HTTP and press done.
        _heading("2. Agents correct by their rule: deliveries and returns are urgent here, all else is low")
        wrong = Counter(field for key, e in truths.items() for field in _judge(run, browser, key, _wanted(e)))
        console.print(
            f"{wrong['priority']} priorities and {wrong['category']} categories of {len(truths)} were corrected through the desk."
        )
        # 3. Harvest and train, by the processes that run anyway.
        _heading("3. Harvest and training")
        told = _command("dataset", "harvest")
        console.print(told, soft_wrap=True)
        finished = self._train(run)
        if finished.state != "done":
            return f"training run {finished.id} ended as {finished.state}: {finished.error}"
        # 4. The gate.
        _heading("4. The gate: candidate, adapter in use and bare base, same emails, same run")
        for check in finished.verdict.get("checks", ()):
            mark = {True: "passed", False: "FAILED", None: "cannot be said"}[check["passed"]]
            console.print(f"  {mark}: {check['rule']}. {check['sentence']}", markup=False, soft_wrap=True)
        console.print(
            f"{finished.verdict['decision']}: {finished.verdict['sentence']}", style="bold", soft_wrap=True
        )
        if finished.verdict["decision"] != "promoted":
            return "the gate did not pass the candidate"
        with run.database.read() as session:
            name = session.get_one(Adapter, finished.adapter_id).name
        # 5. A second person puts it in use, at the desk.
        _heading(f"5. An admin who did not start the run puts {name} in use")
        browser.post(f"/training/adapters/{name}/promote").raise_for_status()
        second = self._send(run, PROBE.replace("Parcel", "My parcel"), PROBE_TEXT.format("LK-7730"))
        after = self._await_briefs(run, {second})[second]
        _tell("before", before)
        _tell("after", after)
        if after.adapter != name or after.priority != "urgent":
            return f"the new email was briefed as {after.priority} by {after.adapter or 'the bare base'}"
        # 6. And back.
        _heading("6. Roll-back")
        console.print(_command("adapters", "rollback"), soft_wrap=True)
        third = self._send(run, PROBE.replace("Parcel", "The parcel"), PROBE_TEXT.format("LK-9914"))
        back = self._await_briefs(run, {third})[third]
        _tell("after the roll-back", back)
        return "" if back.adapter == before.adapter else f"{back.adapter} is still in use"

    def _send(self, run: "DemoRun", subject: str, text: str) -> str:
        """Into the inbox; returns its Message-ID."""
        self._sent += 1
        message = EmailMessage()
        message["From"] = f"Customer {self._sent} <customer{self._sent}@example.org>"
        message["To"], message["Subject"] = INBOX_USER, re.sub(r"\s+", " ", subject)
        message["Message-ID"] = make_msgid(idstring=str(self._sent), domain="loop.example")
        message.set_content(text)
        with IMAPClient("127.0.0.1", port=run.imap.port, ssl=False, timeout=30) as client:
            client.login(INBOX_USER, run.password)
            client.append("INBOX", message.as_bytes().replace(b"\n", b"\r\n"))
        return str(message["Message-ID"]).strip("<>")

    def _await_briefs(self, run: "DemoRun", keys: set[str]) -> dict[str, Brief]:
        """The briefs of these emails, by Message-ID. Raises BriefboxError when they don't come."""
        deadline = time.monotonic() + self.timeout
        while True:
            run.supervisor.watch()
            with run.database.read() as session:
                rows = session.exec(
                    select(Email, Brief)
                    .join(Brief, col(Brief.email_id) == col(Email.id))
                    .where(col(Brief.shadow).is_(False))
                )
                found = {(e.message_id or "").strip("<>"): b for e, b in rows}
            if keys <= found.keys():
                return {key: found[key] for key in keys}
            if time.monotonic() > deadline or self.demo.stop.wait(0.5):
                raise BriefboxError(f"{len(keys - found.keys())} of {len(keys)} emails were not briefed")

    def _train(self, run: "DemoRun") -> TrainingRun:
        with run.database.write() as session:
            chosen = store.get_dataset(session, None)
            row = TrainingRun(dataset_id=chosen.id, base_model=run.settings.base_model)
            number = store.add_run(session, row, actor="cli:loop").id
        hints_for(run.settings).train(number)
        deadline = time.monotonic() + 4 * self.timeout
        said = ""
        while True:
            run.supervisor.watch()
            with run.database.read() as session:
                row = store.get_run(session, number)
            if row.state not in ("waiting", "running"):
                return row
            left = (
                f", {row.seconds_left / 60:.0f} minutes left"
                if row.seconds_left and row.stage == "training"
                else ""
            )
            loss = f", loss {row.loss:.2f}" if row.loss is not None and row.stage == "training" else ""
            # Every tenth step, or the log is all that one sees.
            line = f"{row.stage or row.state}: {row.step // 10 * 10} of {row.total_steps}"
            if line != said:
                said = line
                console.print(f"  {line}{loss}{left}")
            if time.monotonic() > deadline or self.demo.stop.wait(1):
                raise BriefboxError(f"training run {number} did not end in time")


def _emails(count: int) -> list[Example]:
    """Held-out starter emails, which no adapter has learned from; half of them about deliveries and returns."""
    from training.seeds import read_seeds

    short = [
        e
        for e in read_seeds()
        if e.split == "test" and not e.input.earlier and len(e.input.text.split()) <= MAX_WORDS
    ]
    ruled = [e for e in short if e.output.category in RULE]
    others = [e for e in short if e.output.category not in RULE]
    pairs = zip(ruled, others, strict=False)
    return [e for pair in pairs for e in pair][:count]


def _wanted(example: Example) -> dict[str, str]:
    """What this desk's agents would say."""
    category = example.output.category or ""
    return {"category": category, "priority": RULE.get(category, ELSE)}


def _judge(run: "DemoRun", browser: httpx.Client, key: str, wanted: dict[str, str]) -> list[str]:
    """What an agent does with one conversation. Returns the fields that were corrected."""
    with run.database.read() as session:
        email = session.exec(select(Email).where(col(Email.message_id).in_([key, f"<{key}>"]))).one()
        row = session.get_one(Conversation, email.conversation_id)
        number, said = row.id, {field: getattr(row, field) for field in wanted}
    wrong = [field for field, value in wanted.items() if said[field] != value]
    for field in wrong:
        form: dict[str, Any] = {
            "field": field,
            "value": wanted[field],
            "before": said[field],
            "idempotency_key": f"{field}-{key}",
        }
        browser.post(f"/conversations/{number}/correct", data=form).raise_for_status()
    if not wrong:
        browser.post(f"/conversations/{number}/confirm").raise_for_status()
    browser.post(f"/conversations/{number}/done").raise_for_status()
    return wrong


def _command(*words: str) -> str:
    """A command of briefbox, as a person types it; what it prints. Raises BriefboxError with what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "briefbox", *words], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise BriefboxError(done.stderr.strip() or done.stdout.strip())
    return done.stdout.strip()


def _in_use(run: "DemoRun") -> str:
    with run.database.read() as session:
        row = adapters.champion(session)
        return f"the adapter {row.name}" if row is not None else "the bare base model"


def _heading(text: str) -> None:
    console.print(f"\n[bold]{text}[/]", soft_wrap=True)


def _tell(when: str, brief: Brief) -> None:
    console.print(
        f"  {when}: {brief.priority}, {brief.category}: {brief.headline} (by {brief.adapter or 'the bare base model'})",
        markup=False,
        soft_wrap=True,
    )
