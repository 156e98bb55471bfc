"""A server with a robots.txt."""

from __future__ import annotations

import time

from servers.scripted import Answer, Asked, ScriptedServer

__all__ = ["BODY", "RobotsServer"]

BODY = b"what may be fetched, or may not"


class RobotsServer(ScriptedServer):
    """Answers every path with ``BODY``, and ``/robots.txt`` with ``rules`` and ``status``, after ``delay_s``."""

    def __init__(self, rules: str = "# none\n", *, status: int = 200, delay_s: float = 0.0) -> None:
        def script(asked: Asked) -> Answer:
            if asked.path != "/robots.txt":
                return Answer(BODY)
            time.sleep(delay_s)
            return Answer(rules.encode(), status=status)

        super().__init__(script)
