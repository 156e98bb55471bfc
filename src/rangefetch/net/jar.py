"""Cookies that servers set along the way (RFC 6265), in memory: for the backend whose engine keeps none for us."""

from __future__ import annotations

import email.message
import urllib.request
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy, eff_request_host  # type: ignore[attr-defined]  # typeshed does not have it

__all__ = ["SessionCookies"]


class _Told:
    """A response, as far as a jar looks at it."""

    def __init__(self, headers: email.message.Message) -> None:
        self._headers = headers

    def info(self) -> email.message.Message:
        return self._headers


class _Policy(DefaultCookiePolicy):
    """Python's, but that a host without a dot, or without a name, may name itself (RFC 6265, section 5.3)."""

    def set_ok_domain(self, cookie: Cookie, request: urllib.request.Request) -> bool:
        host, effective = eff_request_host(request)
        is_named = "." in host and not host.replace(".", "").isdigit()
        if not is_named and cookie.domain_specified and cookie.domain.lstrip(".").lower() == host:
            cookie.domain, cookie.domain_specified, cookie.domain_initial_dot = effective, False, False
        return super().set_ok_domain(cookie, request)


class SessionCookies:
    """The cookies of one set of credentials. Safe to use from several threads; nothing of it is saved.

    A cookie goes back to the host that set it, or to those below the domain that it names, if that is a host's own and
    has a dot; for a domain such as ``co.uk`` none is taken.
    """

    def __init__(self) -> None:
        self._jar = CookieJar(_Policy(strict_domain=True, rfc2965=False))

    def told(self, url: str, headers: email.message.Message) -> None:
        """``url`` was answered with these headers."""
        if "set-cookie" in headers:
            self._jar.extract_cookies(_Told(headers), urllib.request.Request(url))  # type: ignore[arg-type]  # only info() of a response is used

    def for_url(self, url: str) -> str:
        """The value of the Cookie header for a request; empty: there is none for it."""
        request = urllib.request.Request(url)
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""
