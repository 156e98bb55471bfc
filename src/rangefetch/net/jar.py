"""Cookies that servers set during a download (RFC 6265), kept in memory. For the aria2 backend; libcurl has its own."""

from __future__ import annotations

import email.message
import urllib.request
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy, eff_request_host  # type: ignore[attr-defined]  # typeshed does not have it

__all__ = ["SessionCookies"]


class _Told:
    """The part of a response that ``CookieJar`` reads."""

    def __init__(self, headers: email.message.Message) -> None:
        self._headers = headers

    def info(self) -> email.message.Message:
        return self._headers


class _Policy(DefaultCookiePolicy):
    """Python's policy, except that a host without a dot, or an address, may name itself as a cookie's domain (RFC 6265,
    section 5.3).
    """

    def set_ok_domain(self, cookie: Cookie, request: urllib.request.Request) -> bool:
        host, effective = eff_request_host(request)
        is_named = "." in host and not host.replace(".", "").isdigit()
        if not is_named and cookie.domain_specified and cookie.domain.lstrip(".").lower() == host:
            cookie.domain, cookie.domain_specified, cookie.domain_initial_dot = effective, False, False
        return super().set_ok_domain(cookie, request)


class SessionCookies:
    """The cookies that belong to one set of credentials. Thread-safe; never written to disk.

    A cookie is sent back to the host that set it, or to all hosts below the domain that it names, if that domain is the
    host's own and has a dot. Cookies for a domain such as ``co.uk`` are refused.
    """

    def __init__(self) -> None:
        self._jar = CookieJar(_Policy(strict_domain=True, rfc2965=False))

    def told(self, url: str, headers: email.message.Message) -> None:
        """Store the cookies in the headers of a response to ``url``."""
        if "set-cookie" in headers:
            self._jar.extract_cookies(_Told(headers), urllib.request.Request(url))  # type: ignore[arg-type]  # only info() of a response is used

    def for_url(self, url: str) -> str:
        """The value of the Cookie header for a request to ``url``; empty if no cookie matches."""
        request = urllib.request.Request(url)
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""
