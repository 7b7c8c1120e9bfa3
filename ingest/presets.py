"""Where the mailboxes of well-known providers are, by the domain of an address or by the hosts that take its mail."""

from collections.abc import Sequence
from dataclasses import dataclass

_APP = (
    "It wants an app password, made in the account's security settings; the person's own password is refused."
)
_ON = "IMAP must be switched on in the mailbox's settings first."
_CODE = "IMAP must be switched on in the mailbox's settings, which gives an authorization code: that is the password here."


@dataclass(frozen=True, slots=True)
class Provider:
    """An IMAP service: where it listens, how one signs in (the usual way first), and what to know in one sentence."""

    name: str
    host: str
    domains: tuple[str, ...] = ()
    mail_hosts: tuple[str, ...] = ()  # ends of the names of the hosts that take its customers' mail (MX)
    port: int = 993
    security: str = "tls"
    auth: tuple[str, ...] = ("password",)
    oauth: str = ""  # the provider's name for --provider
    note: str = ""


PROVIDERS = (
    Provider(
        "Google",
        "imap.gmail.com",
        ("gmail.com", "googlemail.com"),
        ("l.google.com", "googlemail.com", "smtp.google.com"),
        auth=("password", "oauth2"),
        oauth="google",
        note="It wants an app password (which needs 2-step verification), or OAuth2; the person's own password is refused.",
    ),
    Provider(
        "Microsoft 365",
        "outlook.office365.com",
        ("outlook.com", "hotmail.com", "live.com", "msn.com", "onmicrosoft.com", "outlook.de", "outlook.fr", "hotmail.co.uk", "hotmail.de", "hotmail.fr", "hotmail.it", "live.de", "live.fr", "live.nl", "live.co.uk"),
        ("mail.protection.outlook.com", "mx.microsoft", "olc.protection.outlook.com"),
        auth=("oauth2",),
        oauth="microsoft",
        note="It takes OAuth2 only: register an application first, as docs/mailboxes.md says.",
    ),
    Provider("iCloud", "imap.mail.me.com", ("icloud.com", "me.com", "mac.com"), ("mail.icloud.com",), note=_APP),
    Provider(
        "Yahoo",
        "imap.mail.yahoo.com",
        ("yahoo.com", "ymail.com", "rocketmail.com", "yahoo.de", "yahoo.fr", "yahoo.it", "yahoo.es", "yahoo.co.uk", "yahoo.co.in", "yahoo.com.br", "yahoo.ca"),
        ("yahoodns.net",),
        note=_APP,
    ),
    Provider("AOL", "imap.aol.com", ("aol.com", "aol.de", "aim.com"), note=_APP),
    Provider("GMX", "imap.gmx.net", ("gmx.de", "gmx.net", "gmx.at", "gmx.ch", "gmx.eu"), note=_ON),
    Provider("GMX", "imap.gmx.com", ("gmx.com", "gmx.us", "gmx.co.uk", "gmx.fr", "gmx.es"), note=_ON),
    Provider("WEB.DE", "imap.web.de", ("web.de", "email.de"), note=_ON),
    Provider("mail.com", "imap.mail.com", ("mail.com", "email.com", "usa.com", "post.com"), note="IMAP comes with its paid plans and must be switched on in the mailbox's settings."),
    Provider("T-Online", "secureimap.t-online.de", ("t-online.de", "magenta.de"), note="It has a password for e-mail programs of its own, set in the customer centre."),
    Provider("freenet", "mx.freenet.de", ("freenet.de",)),
    Provider("Fastmail", "imap.fastmail.com", ("fastmail.com", "fastmail.fm", "sent.com"), ("messagingengine.com",), note=_APP),
    Provider("Zoho", "imap.zoho.com", ("zoho.com", "zohomail.com"), note=_ON),
    Provider("Zoho Mail (own domain)", "imappro.zoho.com", (), ("mx.zoho.com", "mx2.zoho.com", "mx3.zoho.com"), note=_ON),
    Provider("Zoho Mail (Europe)", "imappro.zoho.eu", ("zohomail.eu",), ("mx.zoho.eu", "mx2.zoho.eu", "mx3.zoho.eu"), note=_ON),
    Provider("IONOS", "imap.ionos.de", ("online.de", "onlinehome.de"), ("ionos.de", "kundenserver.de")),
    Provider("IONOS", "imap.ionos.com", (), ("ionos.com", "perfora.net", "1and1.com")),
    Provider("IONOS", "imap.ionos.co.uk", (), ("ionos.co.uk",)),
    Provider("STRATO", "imap.strato.de", (), ("rzone.de",)),
    Provider("mailbox.org", "imap.mailbox.org", ("mailbox.org",), ("mailbox.org",), note="With two-factor sign-in it wants an app password."),
    Provider("Posteo", "posteo.de", ("posteo.de", "posteo.net", "posteo.org", "posteo.eu")),
    Provider("OVHcloud", "ssl0.ovh.net", (), ("mail.ovh.net", "ovh.net")),
    Provider("Gandi", "mail.gandi.net", (), ("mail.gandi.net",)),
    Provider("Infomaniak", "mail.infomaniak.com", ("ik.me", "ikmail.com"), ("infomaniak.ch",), note="It wants a device password, made in its mail settings."),
    Provider("Migadu", "imap.migadu.com", (), ("migadu.com",)),
    Provider("Hostinger", "imap.hostinger.com", (), ("hostinger.com",)),
    Provider("Rackspace", "secure.emailsrvr.com", (), ("emailsrvr.com",)),
    Provider("Orange", "imap.orange.fr", ("orange.fr", "wanadoo.fr"), note=_ON),
    Provider("Free", "imap.free.fr", ("free.fr",)),
    Provider("La Poste", "imap.laposte.net", ("laposte.net",), note=_ON),
    Provider("Libero", "imapmail.libero.it", ("libero.it",)),
    Provider("Seznam", "imap.seznam.cz", ("seznam.cz", "email.cz")),
    Provider("Yandex", "imap.yandex.com", ("yandex.com", "yandex.ru", "ya.ru", "yandex.by", "yandex.kz"), ("mx.yandex.net", "mx.yandex.ru"), note=f"{_ON} {_APP}"),
    Provider("Mail.ru", "imap.mail.ru", ("mail.ru", "bk.ru", "inbox.ru", "list.ru"), ("mail.ru",), note=_APP),
    Provider("QQ", "imap.qq.com", ("qq.com", "foxmail.com"), note=_CODE),
    Provider("Tencent Exmail", "imap.exmail.qq.com", (), ("mxbiz1.qq.com", "mxbiz2.qq.com"), note=_CODE),
    Provider("NetEase 163", "imap.163.com", ("163.com",), note=_CODE),
    Provider("NetEase 126", "imap.126.com", ("126.com",), note=_CODE),
    Provider("NetEase yeah.net", "imap.yeah.net", ("yeah.net",), note=_CODE),
    Provider("Naver", "imap.naver.com", ("naver.com",), note=f"{_ON} With two-step sign-in it wants an app password."),
    Provider(
        "Proton Mail",
        "127.0.0.1",
        ("proton.me", "protonmail.com", "pm.me", "protonmail.ch"),
        ("protonmail.ch",),
        port=1143,
        security="starttls",
        note="It is reached through Proton Mail Bridge on this machine, with the password that Bridge shows; export Bridge's certificate and name it with --ca-file.",
    ),
)  # fmt: skip


def by_domain(domain: str) -> Provider | None:
    """The provider whose own domain this is (or a part of it: larkspur.onmicrosoft.com)."""
    return next((p for p in PROVIDERS if _is_under(domain, p.domains)), None)


def by_mail_hosts(hosts: Sequence[str]) -> Provider | None:
    """The provider that takes the mail of a domain, by the names of its MX hosts, the preferred first."""
    for host in hosts:
        for provider in PROVIDERS:
            if _is_under(host, provider.mail_hosts):
                return provider
    return None


def _is_under(name: str, ends: Sequence[str]) -> bool:
    name = name.lower().rstrip(".")
    return any(name == end or name.endswith("." + end) for end in ends)
