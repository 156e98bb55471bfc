"""Masks secrets of URLs in text that people see. Pure functions.

User names and passwords are masked, and the values of parameters that carry signatures, tokens and keys. Everything
else stays, so that the URLs of a thousand failures can be told apart.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["mask_text", "mask_url", "printable", "without_userinfo"]

_HIDDEN = "***"
_USERINFO = re.compile(r"(//)[^/?#\s]*@")
_USERINFO_FIRST = re.compile(r"[^/?#\s]*@")  # in a URL without a scheme
_PARAMETER = re.compile(r"([?&;#]|%3[Ff]|%26)([^\s=&;#?/%]{1,64})(=|%3[Dd])")
_VALUE = re.compile(r"[^\s&;#\"'<>]*")
_INNER_VALUE = re.compile(r"(?:(?!%2[63])[^\s&;#\"'<>])*")
_EXACT = frozenset(
    {
        *("sign", "bearer", "jwt", "pass", "passcode", "pwd", "otp", "session", "sid", "sas", "ticket", "policy"),
        *("googleaccessid", "key-pair-id", "hdnts", "hdnea", "hdntl", "hm"),
    }
)
# Names of keys end in "key" (auth_key, passkey, Subscription-Key). "author" does not count as "auth".
_WITHIN = re.compile(
    r"token|signature|secret|passw|passphrase|credential|hmac|sess(?:ion)?[-_]?id|auth(?!or(?!iz))|access[-_]?key"
    r"|(?:key|sig)$"
)
_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "x-obs-", "x-bce-", "q-sign")


def mask_url(url: str) -> str:
    """The URL without user name and password (either may be a token), and without the values of parameters that carry
    secrets.
    """
    if first := _USERINFO_FIRST.match(url):
        url = f"{_HIDDEN}@{url[first.end() :]}"
    return mask_text(url)


def mask_text(text: str) -> str:
    """Mask all URLs in a text like ``mask_url``, including URLs inside other URLs and text that only resembles one."""
    if "@" in text:
        text = _USERINFO.sub(rf"\1{_HIDDEN}@", text)
    if "=" in text or "%3" in text:
        text = _mask_parameters(text)
        if "@" in text:
            # The masked value may have contained a "?" that kept the text before the "@" from matching as userinfo.
            text = _USERINFO.sub(rf"\1{_HIDDEN}@", text)
    return text


def without_userinfo(url: str) -> str:
    """The URL unchanged except that user name and password are masked."""
    return _USERINFO.sub(rf"\1{_HIDDEN}@", url, count=1)


def printable(text: str) -> str:
    """The text on one line, with unprintable characters escaped, so that it cannot move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _mask_parameters(text: str) -> str:
    """Mask parameters in a single pass, since a sender can nest URLs in each other's values as deeply as it likes."""
    masked: list[str] = []
    done = at = 0
    while found := _PARAMETER.search(text, at):
        at = found.end()
        if not _is_secret(unquote(found[2]).lower()):
            continue
        # Inside another parameter's value, it ends where the inner URL's next parameter begins.
        is_inner = found[1].startswith("%") or found[3].startswith("%")
        value = (_INNER_VALUE if is_inner else _VALUE).match(text, at)
        if value is not None and value[0]:
            masked += (text[done:at], _HIDDEN)
            done = at = value.end()
    masked.append(text[done:])
    return "".join(masked)


def _is_secret(name: str) -> bool:
    return name in _EXACT or name.startswith(_PREFIXES) or _WITHIN.search(name) is not None
