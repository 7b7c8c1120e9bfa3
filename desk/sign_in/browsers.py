"""What browsers call themselves, in words. Good enough to tell one's own apart; nothing depends on it."""

_BROWSERS = (
    ("Edg", "Edge"),
    ("OPR", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("Chromium", "Chromium"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Macintosh", "macOS"),
    ("Linux", "Linux"),
)


def browser_in_words(name: str) -> str:
    """For example "Firefox on Windows"; another program's own name as it stands."""
    browser = next((said for part, said in _BROWSERS if part in name), "")
    system = next((said for part, said in _SYSTEMS if part in name), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or name[:60] or "a browser that does not say what it is"
