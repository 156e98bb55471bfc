"""RPC client for aria2c: aria2p's client, but raising this project's errors and keeping one connection open.

Importing aria2p takes a quarter of a second, so it is deferred until the first client is made.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from rangefetch.errors import DaemonUnavailable, LocalError, ProcessStartFailed
from rangefetch.importing import no_fork
from rangefetch.logs import log as _log

__all__ = ["Aria2Client", "RpcError", "client_class"]

_HOST = "http://127.0.0.1"
_TIMEOUT_S = 10.0
_RECEIVE_S = 5.0
_RECONNECT_S = 1.0


class RpcError(LocalError):
    """aria2 understood the call and refused it."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"aria2 refused: {message}")


class Aria2Client:
    """Client of the aria2c on this machine that has this port and secret. Thread-safe.

    Raises ``ProcessStartFailed`` if aria2p is not installed.
    """

    def __init__(self, port: int, secret: str, timeout: float = 0.0) -> None:
        self.secret = secret
        self._rpc = client_class()(host=_HOST, port=port, secret=secret, timeout=timeout or _TIMEOUT_S)
        self._listener: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def silent_s(self) -> float:
        """Seconds since the first call that went unanswered; 0 if the last call was answered."""
        since_s = self._rpc.silent_since_s
        return time.monotonic() - since_s if since_s else 0.0

    @property
    def port(self) -> int:
        return int(self._rpc.port)

    @port.setter
    def port(self, port: int) -> None:
        self._rpc.port = port
        self._rpc.silent_since_s = 0.0  # a new process starts with a clean record

    def call(self, method: str, *parameters: object) -> Any:
        """Call ``aria2.METHOD`` and return its result. Raises ``RpcError``; ``DaemonUnavailable`` without an answer."""
        with no_fork:
            import aria2p

        try:
            return self._rpc.call(f"aria2.{method}", list(parameters))
        except aria2p.ClientException as error:
            raise RpcError(error.code, error.message) from None

    def call_all(self, calls: Sequence[tuple[str, list[Any]]]) -> list[Any | RpcError]:
        """Make several calls in one request and return their results, with an ``RpcError`` for each refused call."""
        if not calls:
            return []
        with no_fork:
            import aria2p

        try:
            answers = self._rpc.multicall2([(f"aria2.{method}", parameters) for method, parameters in calls])
        except aria2p.ClientException as error:
            raise RpcError(error.code, error.message) from None
        assert isinstance(answers, list)
        return [
            answer[0] if isinstance(answer, list) else RpcError(answer["code"], answer["message"]) for answer in answers
        ]

    def can_listen(self) -> bool:
        """Whether a WebSocket connection can be made."""
        with no_fork:
            import websocket

        try:
            websocket.create_connection(self._rpc.ws_server, timeout=_RECEIVE_S).close()
        except (OSError, ValueError, websocket.WebSocketException) as error:
            _log.info("no WebSocket connection to aria2: %s", error)
            return False
        return True

    def listen(self, on_event: Callable[[], None]) -> None:
        """Until :meth:`close`, call ``on_event``, from a thread, whenever a download starts, stops or ends.

        Do not rely on it: events are lost while there is no WebSocket connection. It only saves waiting for the next
        poll.
        """
        self._stopping.clear()
        self._listener = threading.Thread(
            target=_listen, args=(self._rpc, self._stopping, on_event), name="rangefetch-aria2-events", daemon=True
        )
        self._listener.start()

    def close(self) -> None:
        """Stop listening, and close the connections. Returns quickly if aria2c has already exited."""
        self._stopping.set()
        self._rpc.stop_listening()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.join(_RECEIVE_S + 1)
        self._rpc.session.close()


def _listen(rpc: Any, stopping: threading.Event, on_event: Callable[[], None]) -> None:
    def told(_: str) -> None:
        on_event()

    while not stopping.is_set():
        try:
            rpc.listen_to_notifications(
                on_download_start=told,
                on_download_stop=told,
                on_download_complete=told,
                on_download_error=told,
                timeout=_RECEIVE_S,
                handle_signals=False,
            )
        except Exception as error:  # from websocket-client, the system or the JSON parser
            _log.debug("no notifications from aria2 for now, polling instead: %s", error)
        stopping.wait(_RECONNECT_S)


@functools.cache
def client_class() -> type[Any]:
    """The class that speaks aria2's RPC. Raises ``ProcessStartFailed`` if its packages are not installed."""
    try:
        with no_fork:
            import aria2p
            import requests
    except ImportError as error:
        raise ProcessStartFailed(f"aria2p is missing ({error}); pip install 'rangefetch[aria2]'") from error

    class Client(aria2p.Client):
        """aria2p's client with a ``requests`` session, which keeps its connection and uses no proxy."""

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.session = requests.Session()
            self.session.trust_env = False
            self.silent_since_s = 0.0

        def post(self, payload: str) -> dict[str, Any]:
            asked_s = time.monotonic()
            try:
                answer: dict[str, Any] = self.session.post(
                    self.server, data=payload.encode(), timeout=self.timeout
                ).json()
            except (requests.RequestException, ValueError) as error:
                self.silent_since_s = self.silent_since_s or asked_s
                raise DaemonUnavailable(f"aria2c does not answer on port {self.port}: {error}") from None
            self.silent_since_s = 0.0
            return answer

    return Client
