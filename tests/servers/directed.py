"""Replies controlled by a test: one after the other by a script, or all together by a valve."""

import dataclasses
import urllib.parse

from servers.routing import ROUTES, Ask, route
from servers.wire import Pace, Reply

__all__ = ["Valve"]


@route("script")
def script(ask: Ask, reply: Reply, *, steps: str = "", then: str = "good") -> Reply:
    """Answers the n-th request with the n-th of ``steps``, and further requests with ``then``.

    A step is a route with parameters, or several applied in order: ``chunked+cut:after=10:seed=1``.
    """
    listed = steps.split("|") if steps else []
    step = listed[ask.turn] if ask.turn < len(listed) else then
    shared = {name: int(value) if isinstance(value, bool) else value for name, value in vars(ask.common).items()}
    for number, part in enumerate(step.split("+")):
        name, *pairs = part.split(":")
        route = ROUTES[name]
        # The first part defines the good reply; the following ones only spoil it.
        defaults = (
            {}
            if number
            else {key: int(value) if value in (True, False) else value for key, value in route.defaults.items()}
        )
        given = shared | defaults | dict(pair.split("=", 1) for pair in pairs)
        common, own = route.parse(urllib.parse.urlencode(given))
        ask = dataclasses.replace(ask, common=common)
        reply = route.fault(ask, reply if number else ask.good(), **own)
        reply.delay += common.delay
    return reply


class Valve:
    """The route ``/valve``: its replies share a low rate until a test opens it."""

    def __init__(self, bytes_per_second: int) -> None:
        self._pace = Pace(bytes_per_second)

    def narrow(self, bytes_per_second: int) -> None:
        """Limit the shared rate from now on."""
        self._pace.bytes_per_second = bytes_per_second

    def open(self) -> None:
        """Send at full speed from now on."""
        self._pace.bytes_per_second = 1 << 40

    def __call__(self, ask: Ask, reply: Reply) -> Reply:
        reply.pace = self._pace
        return reply
