"""Whether an email holds text that is addressed to an assistant instead of to people.

It is noted on the email and changes nothing else: rules like these can be got around, so nothing depends on them.
The defence is the structure (closed label sets, no tools, one conversation for each prompt: docs/security.md).
"""

import re
import unicodedata

from models.text import visible

# Longer texts are looked at from both ends.
MAX_CHARS = 60_000

_ABOVE = (
    r"(?:previous|prior|above|earlier|preceding|foregoing|former|existing|original|initial|your|system|all)"
)
_RULES = r"(?:instructions?|prompts?|directives?|guidelines?|rules|commands?|programming|training|messages? above|context)"
_PATTERNS = (
    # English
    rf"\b(?:ignore|disregard|forget|override|bypass|discard|neglect|skip)\b.{{0,25}}\b{_ABOVE}\b.{{0,25}}\b{_RULES}",
    r"\b(?:ignore|disregard|forget) (?:everything|anything|all|the text|whatever) (?:that (?:was|came) )?(?:above|before|prior|previously)",
    r"\b(?:do not|don't|stop) (?:follow|obey|listen to)(?:ing)? (?:your|the|any|all) (?:previous |prior |system |other )?(?:instructions|rules|guidelines|prompt)",
    r"\byou are (?:now )?(?:an? |the |no longer an? )?(?:ai\b|artificial intelligence|chatgpt|gpt|llm|language model|large language model|assistant|chatbot|bot\b|dan\b|jailbroken|unrestricted)",
    r"\b(?:as|being) an? (?:ai|artificial intelligence|large language|language) (?:language )?(?:model|assistant|system)\b",
    r"\b(?:act|behave|respond|answer|pretend)\b.{0,15}\b(?:as if you (?:are|were)|as|to be|like) an? (?:ai|unrestricted|different|new|evil) ?(?:assistant|model|chatbot|bot)?",
    r"\b(?:system|developer|hidden|initial) prompt\b|\byour prompt\b(?! \w)",
    r"\b(?:reveal|print|repeat|show|output|leak|display)\b.{0,20}\b(?:your|the|all) (?:system |initial |hidden |secret )?(?:instructions|prompt|rules|configuration)\b",
    r"\bnew (?:system )?instructions? ?(?:for (?:you|the (?:ai|assistant|model|bot))\b|follow\b|are\b|:)",
    r"\b(?:note|message|attention|instructions?|notice|hint|memo) (?:to|for) (?:the )?(?:ai|a\.i\.|llm|language model|assistant model|ai assistant|chatbot|automated (?:system|reader)|summari[sz]er|classifier|model)\b",
    r"\b(?:ai|llm|language model|model|summari[sz]er|classifier)(?: assistant)? (?:reading|processing|summari[sz]ing|classifying) (?:this|the) (?:e-?mail|message|text|ticket)",
    r"\b(?:respond|reply|answer|output|write|say) (?:only|exclusively|exactly|just) (?:with|in|as)\b",
    r"\b(?:set|mark|classify|label|rate|assign|categori[sz]e|treat)\b.{0,20}\b(?:the |this |my )?(?:priority|category|label|email|e-mail|message|ticket)\b.{0,12}\b(?:to|as) ['\"“]?(?:urgent|high|low|normal|critical)['\"”]?\b.{0,40}\b(?:regardless|no matter|in your (?:output|summary|answer)|always|and nothing else|ignore)",
    r"\b(?:in|into) (?:the|your) (?:summary|headline|brief|output)\b.{0,30}\b(?:write|say|state|include|claim|add|mention|put)\b",
    r"\b(?:write|say|state|include|claim|add|mention|put)\b.{0,40}\b(?:in|into|at the (?:start|end|top) of) (?:the|your) (?:summary|headline|brief|output)\b",
    r"\b(?:summari[sz]e this (?:e-?mail|message|text) as|the (?:correct|only|right) (?:summary|label|priority|category) is)\b",
    r"\bjailbreak(?:ed|ing)?\b|\bprompt injection\b|\bdo anything now\b",
    # German, French, Spanish
    r"\b(?:ignorier|vergiss|vergesse|missacht|verwirf)\w*\b.{0,30}\b(?:anweisung|instruktion|vorgabe|regel|prompt|befehl)\w*",
    r"\bdu bist (?:jetzt |nun |ab jetzt )?(?:ein |eine |kein )?(?:ki\b|künstliche intelligenz|assistent|sprachmodell|chatbot|chatgpt)",
    r"\b(?:als (?:ki|sprachmodell)|an die ki|hinweis (?:an|für) (?:die ki|das modell|den assistenten)|system-?prompt|systemanweisung)\b",
    r"\b(?:ignore[zr]?|oublie[zr]?|ne tiens? pas compte de)\b.{0,30}\b(?:instructions?|consignes?|directives?|règles)\b",
    r"\btu es (?:maintenant |désormais )?(?:une? )?(?:ia\b|intelligence artificielle|assistant|modèle|chatbot)",
    r"\ben tant que (?:ia\b|modèle de langage|assistant)|\binvite système\b|\bmessage pour l['’]ia\b",
    r"\b(?:ignora|olvida|descarta|omite)\w{0,3}\b.{0,30}\b(?:instrucciones|indicaciones|órdenes|reglas|directrices)\b",
    r"\b(?:ahora )?eres (?:ahora )?(?:una? )?(?:ia\b|inteligencia artificial|asistente|modelo|chatbot)",
    r"\bcomo (?:ia\b|modelo de lenguaje)|\bmensaje para la ia\b|\bprompt del sistema\b",
    # Chat markup of any model family, and our own delimiters
    r"<\|[^|<>\n]{1,40}\|>|\[/?inst\]|<</?sys>>|</?s>\s|<(?:start|end)_of_turn>|<\s*/?\s*email\s*>",
)
# These count at the beginning of a line only.
_LINE_PATTERNS = (
    r"^\s*#{1,4}\s*(?:instructions?|system|assistant|response|new task)\s*:?\s*$",
    r"^[ \t]*(?:system|assistant)[ \t]*:[ \t]*\S",
)
# The text is lower-cased once: matching without regard to case takes twice as long.
_FINDER = re.compile("|".join(f"(?:{pattern})" for pattern in _PATTERNS))
_LINE_FINDER = re.compile("|".join(f"(?:{pattern})" for pattern in _LINE_PATTERNS), re.MULTILINE)
# Letters set apart: "i g n o r e   a l l". Five at least, or initials would be joined.
_SPACED = re.compile(r"(?<!\w)(?:\w[ .\-_]){4,40}\w(?!\w)")


def addresses_assistant(text: str) -> bool:
    """Whether `text` contains text addressed to an assistant: orders to a model, or chat markup."""
    if len(text) > MAX_CHARS:
        text = text[: MAX_CHARS // 2] + "\n" + text[-MAX_CHARS // 2 :]
    text = unicodedata.normalize("NFKC", visible(text)).lower()
    # Lines are wrapped anywhere: an order may run over two of them.
    unwrapped = re.sub(r"[ \t]{1,8}", " ", re.sub(r"(?<=\w)\n(?=\w)", " ", text))
    joined = _SPACED.sub(lambda match: re.sub(r"[ .\-_]", "", match[0]), unwrapped)
    if _LINE_FINDER.search(text) or _FINDER.search(unwrapped):
        return True
    return joined != unwrapped and _FINDER.search(joined) is not None
