"""Routes that want credentials: logins and cookies."""

import base64
import hashlib
import re
from urllib.parse import urlencode

from servers.routing import Ask, message, route
from servers.wire import Reply

__all__: list[str] = []


def _to(url: str, *cookies: str) -> Reply:
    reply = message(302, "elsewhere")
    reply.headers["Location"] = url
    reply.extra += [f"Set-Cookie: {cookie}" for cookie in cookies]
    return reply


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@route("cookie-wall")
def cookie_wall(ask: Ask, reply: Reply, *, cookie: str = "seen=1", attributes: str = "; Path=/") -> Reply:
    """Unless the request has the cookie, sets it and redirects (302) to the same URL."""
    if cookie in ask.headers.get("cookie", "").split("; "):
        return reply
    return _to(ask.target, cookie + attributes)


@route("behind-login")
def behind_login(ask: Ask, reply: Reply, *, at: str = "") -> Reply:
    """The file, for requests with a session; others are redirected to the login host ``at``, and from there back."""
    if "session=open" in ask.headers.get("cookie", "").split("; "):
        return reply
    if "ticket" in ask.headers.get("cookie", ""):
        return _to(ask.target, "session=open; Path=/; HttpOnly", "ticket=; Path=/; Max-Age=0")
    back = f"http://{ask.headers['host']}{ask.target}"
    return _to(f"{at}&{urlencode({'back': back})}", "ticket=1; Path=/")


@route("login")
def login(ask: Ask, reply: Reply, *, user: str = "me", password: str = "s3cret", back: str = "") -> Reply:
    """Redirects back if the request has the right name and password (Basic); otherwise sends a page with a form."""
    if ask.headers.get("authorization") != _basic(user, password):
        return message(200, "please log in")
    return _to(back, "login=done; Path=/")


@route("digest")
def digest(ask: Ask, reply: Reply, *, user: str = "me", password: str = "s3cret") -> Reply:
    """Accepts only Digest authentication (RFC 7616, with MD5 and without qop)."""
    given = dict(re.findall(r'(\w+)="?([^",]*)"?', ask.headers.get("authorization", "")))

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    wanted = md5(f"{md5(f'{user}:tests:{password}')}:nonce:{md5(f'{ask.method}:{ask.target}')}")
    if given.get("response") == wanted:
        return reply
    reply = message(401, "who is there?")
    reply.headers["WWW-Authenticate"] = 'Digest realm="tests", nonce="nonce", algorithm=MD5'
    return reply


@route("basic")
def basic(ask: Ask, reply: Reply, *, user: str = "me", password: str = "s3cret") -> Reply:
    """Accepts only Basic authentication."""
    if ask.headers.get("authorization") == _basic(user, password):
        return reply
    reply = message(401, "who is there?")
    reply.headers["WWW-Authenticate"] = 'Basic realm="tests"'
    return reply
