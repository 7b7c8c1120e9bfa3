"""What other libraries make of the labelled replies; run by bench/replies.py with the Python that has them.

Reads a JSON list of {"text", "html"} and writes, for each library that is there, its replies and seconds.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

Reader = Callable[[dict[str, str]], str]


def main() -> None:
    mails = json.load(sys.stdin)
    results = {}
    for name, make in LIBRARIES.items():
        try:
            read = make()
        except Exception as error:
            print(f"{name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        started = time.process_time()
        replies = [_read(read, mail) for mail in mails]
        results[name] = {"replies": replies, "seconds": time.process_time() - started}
    json.dump(results, sys.stdout)


def _read(read: Reader, mail: dict[str, str]) -> str:
    try:
        return read(mail)
    except Exception:
        # What a library cannot read stays as it is, as a user of it would do.
        return mail["text"]


def _email_reply_parser() -> Reader:
    from email_reply_parser import EmailReplyParser

    return lambda mail: str(EmailReplyParser.parse_reply(mail["text"]))


def _mail_parser_reply() -> Reader:
    from mailparser_reply import EmailReplyParser
    from mailparser_reply.constants import MAIL_LANGUAGES

    languages = [name for name in MAIL_LANGUAGES if name != "david"]
    return lambda mail: EmailReplyParser(languages=languages).parse_reply(mail["text"]) or ""


def _quotequail() -> Reader:
    import quotequail

    return lambda mail: "\n".join(
        text for own, text in quotequail.quote(mail["text"], quote_intro_line=True) if own
    )


def _unquotemail() -> Reader:
    from unquotemail import Unquote

    def read(mail: dict[str, str]) -> str:
        if mail["html"]:
            return _words(Unquote(mail["html"], "").get_html())
        return str(Unquote("", mail["text"]).get_text())

    return read


def _talon(*, signature: bool) -> Reader:
    import talon
    from talon import quotations

    talon.init() if not signature else None
    cut: Any = _talon_signature() if signature else None

    def read(mail: dict[str, str]) -> str:
        if mail["html"]:
            text = _words(quotations.extract_from_html(mail["html"]))
        else:
            text = quotations.extract_from_plain(mail["text"])
        return cut(text)[0] if cut else text

    return read


def _talon_signature() -> Any:
    """Its rules for signatures, which import a name that scikit-learn no longer has."""
    import joblib
    import sklearn.externals

    sys.modules["sklearn.externals.joblib"] = joblib
    sklearn.externals.joblib = joblib
    from talon.signature.bruteforce import extract_signature

    return extract_signature


def _words(source: str) -> str:
    """The words of HTML with a line for each block, the same for every library."""
    from lxml import html

    tree = html.document_fromstring(source)
    for element in list(tree.iter("style", "script", "title")):
        element.drop_tree()
    for element in tree.iter("br", "div", "p", "li", "tr", "blockquote"):
        element.tail = "\n" + (element.tail or "")
        if element.tag != "br":
            element.text = "\n" + (element.text or "")
    return str(tree.text_content()).strip()


LIBRARIES: dict[str, Callable[[], Reader]] = {
    "email-reply-parser": _email_reply_parser,
    "mail-parser-reply": _mail_parser_reply,
    "quotequail": _quotequail,
    "unquotemail": _unquotemail,
    "talon (quotes)": lambda: _talon(signature=False),
    "talon (quotes, signature)": lambda: _talon(signature=True),
}

if __name__ == "__main__":
    main()
