"""Fixtures of the matrix."""

from collections.abc import Iterator

import pytest

from matrix.server import Server
from servers.tls import Certificates

pytest.register_assert_rewrite("matrix.trial")


@pytest.fixture(scope="session")
def matrix_server(certificates: Certificates, unrelated_certificates: Certificates) -> Iterator[Server]:
    """The server of all cases."""
    with Server(certificates, unrelated_certificates) as server:
        yield server
