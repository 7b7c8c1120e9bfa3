"""The signature at the end of what a sender wrote: contact block, mobile footer, disclaimer.

Only the last lines are looked at, and only what nobody would miss is taken for one: a number by which a
customer is known, a postscript or a sentence keeps its block in the reply.
"""

import re

from ingest.quote_headers import RULE, short

# A signature with a disclaimer; longer ends are prose.
_TAIL = 40
_BLOCK = 14
_LONGEST_LINE = 90
_LONGEST_CLOSING = 64
_LONGEST_FOOTER = 120
_SPOKEN = 4_000

_MOBILE = re.compile(
    r"^\s*(?:sent from my |sent from (?:outlook|yahoo|proton|mail|gmail)|sent with \[?proton|sent via |get outlook for |"
    r"von meinem .{1,40} gesendet|von meiner .{1,40} gesendet|gesendet von |gesendet mit |diese nachricht wurde von mein|"
    r"envoy[ée] (?:de(?:puis)?|avec|à partir d) ?|t[ée]l[ée]charger outlook|obtenir outlook|"
    r"enviado (?:desde|con) |obtener outlook|inviato da(?:l mio)? ?|inviato con |scarica outlook|ottieni outlook|"
    r"(?:verzonden|verstuurd) (?:vanaf|met|via) |outlook voor .{1,20} downloaden|download outlook voor|"
    r"enviado (?:do|a partir do|com|via) |obter o outlook|baixar o outlook|"
    r"skickat (?:från|med) |hämta outlook|wysłan[eoy] z |pobierz outlook|pobierz program outlook|"
    r"outlook für .{1,20} herunterladen|holen sie sich outlook|"
    r"sendt fra min |lähetetty .{1,20}stä$|отправлено (?:с|из) |"
    r"(?:iphone|ipad|android|galaxy).{0,10}から送信|(?:ios|android) 版?の? ?outlook|outlook for .{1,10}を入手|"
    r"(?:发自|發自|来自|來自)我的|从我的.{1,12}(?:发送|發送)|從我的.{1,12}傳送|获取 ?(?:ios|android) 版? ?outlook|나의 iphone에서 보냄)"
    r".*$|^\s*outlook (?:für|pour|para|per|voor|för|dla) \w+\s*<.*>\s*\w*$|^\s*outlook für .{1,60} herunterladen$",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"^\s*(?:(?:with )?(?:kind(?:est)?|best|warm(?:est)?|many)? ?regards|best wishes|all the best|cheers|sincerely|"
    r"yours (?:sincerely|faithfully|truly)|sincerely yours|thanks|thank you|many thanks|best|kr|br|rgds|"
    r"(?:mit )?(?:freundlichen?|freundlichem|besten?|herzlichen?|vielen?|viele|schönen?|liebe[nr]?) gr(?:ü|ue)(?:ß|ss)(?:en?)?"
    r"(?: aus [\w ]{2,30})?|gr(?:u|ü)(?:ß|ss)e?|mfg|vg|lg|"
    r"(?:bien |très )?cordialement|(?:bien )?à vous|salutations(?: distinguées)?|sincères salutations|"
    r"(?:un )?(?:cordial |atento )?saludos?(?: cordial(?:es)?)?|atentamente|atte|slds|"
    r"(?:cordiali|distinti|cari) saluti|saluti|cordialmente|cordialità|"
    r"(?:met )?(?:vriendelijke|hartelijke)? ?groet(?:en|jes)?|hoogachtend|mvg|(?:met )?vr\.? ?gr|m\.v\.g|"
    r"(?:com os )?(?:melhores|meus) cumprimentos|cumprimentos|atenciosamente|atentamente|abraços?|"
    r"(?:med )?(?:vänliga|vänlig|bästa|hjärtliga)? ?hälsning(?:ar)?|mvh|"
    r"z (?:poważaniem|wyrazami szacunku)|pozdrawiam(?: serdecznie)?|pozdr|"
    r"(?:以上、?)?(?:どうぞ)?(?:宜|よろ)しくお(?:願|ねが)い(?:いた|致)?し(?:ます|申し上げます)|敬具|草々|"
    r"此致|敬礼|敬禮|祝好|谢谢|謝謝|(?:顺颂|順頌|顺祝|順祝)(?:商祺|时祺|時祺))\s*[,.!。，！]*\s*$",
    re.IGNORECASE,
)
_CONTACT = re.compile(
    r"(?:\b(?:tel|tél|tlf|tlm|fon|phone|telefon\w*|téléphone|fax|mob\w*|mobile|cell|handy|gsm|portable|tfn|kom|[tmp])|"
    r"电话|電話|手机|手機|携帯)[ .:：]{0,5}[+(]?\d[\d\s()/.\-]{5,}|"
    r"^\s*[+(]?\d[\d\s()/.\-]{7,}$|\bwww\.|https?://|〒\s*\d|"
    r"\b(?:gmbh|ltd|llc|inc\.|s\.?a\.?r\.?l|s\.?r\.?l|b\.v\.|lda|sp\. z o\.o)(?!\w)|株式会社|有限公司",
    re.IGNORECASE,
)
# What the desk may need: these lines stay, and so does what is around them.
_NEEDED = re.compile(
    r"n(?:umber|ummer|umm?er|úmero|umero|uméro|umer|r\.?|°|º|o\.)\b|\bn[°º]|\b(?:customer|client|account|order|contract|"
    r"policy|case|ticket|invoice|serial|kund|konto|auftrag|bestell|vertrag|rechnung|vorgang|commande|contrat|dossier|"
    r"pedido|contrato|factura|fatura|cliente|codice|ordine|contratto|klant|bestel|order|contract|encomenda|avtal|"
    r"klient|zamówien|umow)\w*[\s#:.°\-A-Z]{0,12}\d|\b(?:iban|rma|bic|s/?n|imei|vin)\b|"
    r"#\s?\d|\bp\.? ?s\.?\s*[:.]|\bref\b|番号|注文|訂單|订单|会员|編號|编号|单号|單號|追伸|附：",
    re.IGNORECASE,
)
# Who speaks of an address or a call may give it in the block below.
_GIVES = re.compile(
    r"address|adress|adresse|dirección|domicilio|indirizzo|adres|endereço|morada|住所|地址|"
    r"\b(?:call|phone|ring|reach me|text me)\b|telephone|rückruf|anruf|\bruf(?:en|t)?\b|telefon|erreich|"
    r"\brappel|\bappel(?:ez|er)\b|joindre|téléphon|\bllám|\bllam(?:ar|en?)\b|teléfono|\bchiama(?:t|r|mi)|\bbel(?:len|t)?\b|"
    r"\bligu|\bligar|\bringa?\b|nå mig|zadzwo|電話|电话|致电|回电",
    re.IGNORECASE,
)
_DISCLAIMER = re.compile(
    r"^\W*(?:(?:this|the information (?:contained )?in this) (?:e-?mail|message|communication)\b.{0,120}\b"
    r"(?:confidential|intended|privileged)|confidentiality notice|disclaimer\b|please consider the environment|"
    r"diese (?:e-?mail|nachricht)\b.{0,80}\b(?:vertraulich|rechtlich geschützt)|"
    r"ce (?:message|courriel|mail|courrier)\b.{0,120}\b(?:confidentiel|destin)|"
    r"aviso (?:legal|de confidencialidad)|este (?:mensaje|correo|e-?mail)\b.{0,120}\bconfidencial|"
    r"(?:questo messaggio|le informazioni contenute|questa e-?mail)\b.{0,120}\b(?:riservat|confidenzial|destinat)|"
    r"(?:dit|deze|de informatie in (?:dit|deze)) (?:e-?mail(?:bericht)?|bericht)\b.{0,120}\b(?:vertrouwelijk|bestemd)|"
    r"esta (?:mensagem|e-?mail)\b.{0,120}\bconfidencia|aviso de confidencialidade|"
    r"(?:detta|det här) (?:e-?post|mejl|meddelande)\w*\b.{0,120}\b(?:konfidentiell|avsett)|"
    r"(?:niniejsza|ta) (?:wiadomość|korespondencja)\b.{0,120}\bpoufn|treść (?:tej|niniejszej) wiadomości\b.{0,120}\bpoufn|"
    r"administratorem .{1,30} danych osobowych\b|antes de imprimir\b|pensez à l['’]environnement|n['’]imprimez ce|"
    r"(?:bitte )?(?:denken|prüfen) sie .{0,60}(?:umwelt|ausdruck)|denk aan het milieu|rispetta l['’]ambiente|pensa all['’]ambiente|"
    r"tänk på miljön|pomyśl o środowisku|"
    r"(?:本|この)(?:電子)?メール.{0,60}(?:機密|秘密)|(?:本|此)(?:电子)?邮件.{0,60}(?:机密|保密))",
    re.IGNORECASE | re.DOTALL,
)
# Who a company is by law: numbers that nobody asks a customer for, on lines that may be long.
_LEGAL = re.compile(
    r"\b(?:geschäftsführer|amtsgericht|handelsregister|hrb|hra|ust-?id|registered (?:in|office)|company (?:no|number|reg)|vat (?:no|reg|number)|"
    r"siret|siren|rcs|capital (?:social|de)|p\.? ?iva|cod(?:ice)?\.? fisc|kvk|btw[- ]?(?:nr|nummer|id)|cif|registro mercantil|cnpj|capital social|org\.? ?(?:nr|nummer)|"
    r"krs|regon|nip|kapitał zakładowy)\b",
    re.IGNORECASE,
)
_LONGEST_LEGAL = 200
_BESIDE = re.compile(r"[|·•]")  # what stands side by side on one line
_CLAUSE = re.compile(r", [a-zà-ÿ]")
_SENTENCE = re.compile(r"[?？!！。]\s*$|[a-zà-ÿ]{4}\.\s+[A-ZÀ-Ý]|\w{2,}\s+(?:\S+\s+){11}")


def signature_start(lines: list[str]) -> int:
    """Index of the first line of the signature; the number of lines where there is none."""
    end = _without_end(lines, len(lines))
    while (start := _without_disclaimer(lines, end)) < end:
        end = _without_end(lines, start)
    return _without_end(lines, _contact_start(lines, end)) if end else end


def _without_end(lines: list[str], end: int) -> int:
    """The end without blank lines, rules and what phones add."""
    while end and (
        lines[end - 1].strip() in {"", "--"}
        or RULE.match(short(lines[end - 1]))
        or _is_footer(lines[end - 1])
    ):
        end -= 1
    return end


def _is_footer(line: str) -> bool:
    # "Sent from my kitchen, where the lamp still hums" is a sentence.
    return len(line) <= _LONGEST_FOOTER and bool(_MOBILE.match(line)) and not _CLAUSE.search(line)


def _without_disclaimer(lines: list[str], end: int) -> int:
    """Where a disclaimer begins in the last paragraph, which may hold a contact block above it; else the end."""
    start = end
    while start and lines[start - 1].strip() and end - start < _TAIL:
        start -= 1
    for at in range(start, end):
        if at and _DISCLAIMER.match("\n".join(lines[at:end])[:500]):
            return at
    return end


def _contact_start(lines: list[str], end: int) -> int:
    """Where a block of phone, address and company begins, below a closing formula's name or a rule; else the end."""
    for at in range(end - 1, max(end - _BLOCK - 3, 0), -1):
        line = lines[at]
        if RULE.match(short(line)):
            above = next((text.strip() for text in reversed(lines[max(at - 3, 0) : at]) if text.strip()), "")
            return at if _is_contact(lines[at + 1 : end]) and not above.endswith((":", "：")) else end
        if len(line) <= _LONGEST_CLOSING and _is_closing(line):
            # The formula and the name below it are the sender's; what follows the name is not.
            name = next((n for n in range(at + 1, end) if lines[n].strip()), end)
            follows = name + 1 if name < end and not _CONTACT.search(lines[name][:_LONGEST_LINE]) else name
            asked = _GIVES.search("\n".join(lines[max(at - _TAIL, 0) : at])[-_SPOKEN:])
            return follows if not asked and _is_contact(lines[follows:end]) else end
    return end


def _is_closing(line: str) -> bool:
    """Whether the line is a closing formula, or the same in two languages."""
    return bool(_CLOSING.match(line)) or (
        "/" in line and all(_CLOSING.match(part) for part in line.split("/", 2))
    )


def _is_contact(block: list[str]) -> bool:
    written = [line for line in block if line.strip()]
    if any(_SENTENCE.search(part) for line in written for part in _BESIDE.split(line)):
        return False
    told = [line for line in written if not (len(line) <= _LONGEST_LEGAL and _LEGAL.search(line))]
    if not 2 <= len(told) <= _BLOCK or any(
        len(line) > _LONGEST_LINE or _NEEDED.search(line) for line in told
    ):
        return False
    return any(_CONTACT.search(line) for line in told)
