"""Nasty passwords, and every form in which one could leak."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus, unquote

NASTY = ["p@s/s:w0rd?#", "50% off: all", "ümläut-ß&=+", "quo\"te's\\n", "p%40ss%2Fword", "plain-but-secret"]
WORST = [NASTY[0], NASTY[3]]  # for whole lines, which take seconds
USER = "user"


def forms(password: str) -> set[bytes]:
    """What a leak of it can look like: raw, percent-encoded, in base64, and as JSON and repr write it."""
    plain = {password, unquote(password)}
    texts = set(plain)
    for one in plain:
        texts |= {quote(one, safe=""), quote(one), quote_plus(one), json.dumps(one)[1:-1], repr(one)[1:-1]}
        texts |= {base64.b64encode(text.encode()).decode() for text in (one, f"{USER}:{one}")}
    return {re.sub("%..", turn, text).encode() for text in texts for turn in (r"\g<0>", lambda code: code[0].lower())}


def leaks(password: str, given: bytes) -> list[bytes]:
    """The forms of a password that are in these bytes."""
    return [form for form in forms(password) if form in given]
