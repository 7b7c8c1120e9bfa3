"""How long it takes to make text of an email: ordinary, the demo's, hostile; beside the standard library and others.

    python -m bench.parse [--peer .venv-parse/bin/python] [--repeat 200]

Every reader gets the same bytes in the same run, by turns: ours (HTML as text, new part, kind, language and all),
ours without what comes after the text, the standard library's `email` with policy.default, get_body() and get_content(), and, with --peer, in another
Python, mail-parser and fast-mail-parser (text alone). A hostile mail is read once, in a child process with
limits on time and memory, since some readers do not come back.
"""

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# The peers' Python has none of what bench.common needs, so that is imported where it is used.

LIMIT_SECONDS = 20
LIMIT_BYTES = 2 << 30
READERS = {"briefbox": "ours", "content": "ours, text only", "email": "standard library"}
PEERS = {"mailparser": "mail-parser", "fast_mail_parser": "fast-mail-parser"}


def reader(name: str) -> Callable[[bytes], object]:
    """A function from bytes to whatever that reader makes of them."""
    if name == "briefbox":
        from ingest.parse import parse_email

        return parse_email
    if name == "content":
        from ingest.addresses import addresses, ids, sent_at
        from ingest.content import read_content
        from ingest.mime import read_part

        def read_text(raw: bytes) -> object:
            part = read_part(raw)
            headers = part.headers
            found = (
                addresses(headers, "from"),
                addresses(headers, "to"),
                headers.get("subject"),
                sent_at(headers),
            )
            return found, ids(headers, "message-id"), read_content(part)

        return read_text
    if name == "email":
        from email import message_from_bytes, policy
        from email.message import EmailMessage

        def read(raw: bytes) -> object:
            message = message_from_bytes(raw, policy=policy.default)
            assert isinstance(message, EmailMessage)
            body = message.get_body(preferencelist=("plain", "html"))
            headers = [message[name] for name in ("From", "To", "Subject", "Date", "Message-ID")]
            return (
                headers,
                body.get_content() if body else "",
                [a.get_filename() for a in message.iter_attachments()],
            )

        return read
    if name == "mailparser":
        import mailparser

        def read_peer(raw: bytes) -> object:
            mail = mailparser.parse_from_bytes(raw)
            return (
                mail.from_,
                mail.to,
                mail.subject,
                mail.date,
                mail.message_id,
                mail.text_plain,
                mail.text_html,
            )

        return read_peer
    import fast_mail_parser

    def read_fast(raw: bytes) -> object:
        mail = fast_mail_parser.parse_email(raw)
        return mail.headers, mail.subject, mail.date, mail.text_plain, mail.text_html

    return read_fast


def ordinary() -> dict[str, list[bytes]]:
    """Lists of ordinary mails by what they are."""
    from bench.common import plain_email, samples

    page = "<table><tr><td><p>This is row {}. Where is <a href='https://shop.example/o/{}'>order {}</a>?</p></td></tr></table>"

    def html(number: int, size: int) -> bytes:
        rows = "".join(page.format(row, row * number, row) for row in range(max(1, size // len(page))))
        head = plain_email(number).partition(b"\r\n\r\n")[0].replace(b"text/plain", b"text/html")
        return head + b"\r\n\r\n<html><body>" + rows.encode() + b"</body></html>\r\n"

    return {
        "2 KB plain": [plain_email(n, 2_000) for n in range(1, 11)],
        "50 KB plain": [plain_email(n, 50_000) for n in range(1, 11)],
        "2 KB HTML": [html(n, 2_000) for n in range(1, 11)],
        "50 KB HTML": [html(n, 50_000) for n in range(1, 11)],
        "demo": samples(),
    }


def times(read: Callable[[bytes], object], mails: list[bytes], repeat: int) -> list[float]:
    """Milliseconds of each reading; the first round is for warming up."""
    taken = []
    for round_ in range(repeat + 1):
        for raw in mails:
            started = time.perf_counter()
            # A reader that raises has taken its time too.
            with contextlib.suppress(Exception):
                read(raw)
            if round_:
                taken.append((time.perf_counter() - started) * 1000)
    return taken


def child(name: str, path: str, repeat: int) -> None:
    """In another process: the times, or what a hostile mail did, as JSON on standard output."""
    read = reader(name)
    lists = [[bytes.fromhex(raw) for raw in mails] for mails in json.loads(Path(path).read_text())]
    if repeat:
        print(json.dumps([times(read, mails, repeat) for mails in lists]))
        return
    read(b"From: a@b\nSubject: x\n\nWarm up the models and imports of this reader, please.")
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    started = time.perf_counter()
    try:
        read(lists[0][0])
        said = ""
    except BaseException as error:
        said = type(error).__name__
    print(json.dumps([(time.perf_counter() - started) * 1000, said]))


def ask(python: str, name: str, lists: list[list[bytes]], repeat: int) -> tuple[object, str]:
    """What a child of that Python found, or why there is nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([[raw.hex() for raw in mails] for mails in lists], file)
        file.flush()
        command = [python, "-m", "bench.parse", "--child", name, file.name, "--repeat", str(repeat)]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=None if repeat else LIMIT_SECONDS, text=True
            )
        except subprocess.TimeoutExpired:
            return None, f"over {LIMIT_SECONDS} s"
    if done.returncode:
        return None, f"died ({done.returncode})"
    return json.loads(done.stdout), ""


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def compare_ordinary(pythons: dict[str, str], repeat: int) -> None:
    """p50, p99 and the worst of each reader, and how often it is slower than ours."""
    from bench.common import print_table

    groups = ordinary()
    found: dict[str, list[list[float]]] = {name: [[] for _ in groups] for name in pythons}
    for _ in range(3):
        for name, python in pythons.items():
            answer, why = ask(python, name, list(groups.values()), max(1, repeat // 3))
            if why:
                raise SystemExit(f"{name}: {why}")
            assert isinstance(answer, list)
            for place, taken in enumerate(answer):
                found[name][place] += taken
    rows = []
    for place, group in enumerate(groups):
        ours = statistics.median(found["briefbox"][place])
        for name in pythons:
            taken = found[name][place]
            middle = statistics.median(taken)
            rows.append(
                [
                    group,
                    (READERS | PEERS)[name],
                    *(f"{value:.3f}" for value in (middle, percentile(taken, 0.99), max(taken))),
                    f"{middle / ours:.2f}",
                ]
            )
    print_table("Ordinary mail, ms an email", ["mail", "reader", "p50", "p99", "worst", "of ours"], rows)


def compare_hostile(pythons: dict[str, str]) -> None:
    """One reading of each hostile mail by each reader, and the worst of all."""
    from bench.common import print_table
    from bench.hostile import hostile_mails

    pythons = {name: python for name, python in pythons.items() if name != "content"}
    worst: dict[str, float] = dict.fromkeys(pythons, 0.0)
    rows = []
    for title, raw in hostile_mails().items():
        row = [title, f"{len(raw) / 1000:.0f} kB"]
        for name, python in pythons.items():
            answer, why = ask(python, name, [[raw]], 0)
            if why:
                row.append(why)
                worst[name] = float("inf")
            else:
                assert isinstance(answer, list)
                row.append(f"{answer[0]:.0f} {answer[1]}".strip())
                worst[name] = max(worst[name], answer[0])
        rows.append(row)
    rows.append(["the worst of all", "", *(f"{value:.0f}" for value in worst.values())])
    title = f"Hostile mail, ms and what was raised; at most {LIMIT_SECONDS} s and 2 GiB"
    print_table(title, ["mail", "size", *((READERS | PEERS)[name] for name in pythons)], rows)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--peer", help="a Python that has mail-parser and fast-mail-parser")
    arguments.add_argument("--repeat", type=int, default=200)
    arguments.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        child(*given.child, given.repeat)
        return
    pythons = dict.fromkeys(READERS, sys.executable)
    if given.peer:
        pythons |= dict.fromkeys(PEERS, given.peer)
    compare_ordinary(pythons, given.repeat)
    compare_hostile(pythons)


if __name__ == "__main__":
    main()
