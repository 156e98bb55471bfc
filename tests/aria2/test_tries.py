"""What happens after a failure of a download in aria2."""

import pytest

from rangefetch.aria2.tries import Next, Tries
from rangefetch.errors import DownloadError
from rangefetch.options import DownloadOptions
from rangefetch.transfer.retry import Kind, RetryPolicy
from support.files import MIB


@pytest.fixture
def tries() -> Tries:
    """The tries of a download that is given up at the third failure in a row."""
    return Tries(RetryPolicy(), DownloadOptions(max_tries=3, retry_wait=0.001), "http://127.0.0.1/x")


def _failed(tries: Tries, kind: Kind, downloaded: int = 0, connections: int = 0, reason: str = "it broke") -> Next:
    return tries.failed(DownloadError(reason), kind, downloaded=downloaded, connections=connections)


@pytest.mark.parametrize("kind", [Kind.LOCAL, Kind.PERMANENT])
def test_what_no_further_try_mends_is_the_end(tries: Tries, kind: Kind) -> None:
    with pytest.raises(DownloadError, match="it broke"):
        _failed(tries, kind)


def test_what_passes_is_tried_until_it_failed_so_often_without_progress(tries: Tries) -> None:
    assert [
        _failed(tries, Kind.TEMPORARY, downloaded).anew for downloaded in (0, 0, MIB, MIB + 5, 2 * MIB, 2 * MIB)
    ] == [False] * 6
    with pytest.raises(DownloadError, match="it broke"):
        _failed(tries, Kind.TEMPORARY, 2 * MIB + 6)
    assert tries.retries == 7


def test_another_file_is_begun_anew_once(tries: Tries) -> None:
    assert _failed(tries, Kind.CHANGED).anew
    with pytest.raises(DownloadError, match="changed again"):
        _failed(tries, Kind.CHANGED, reason="changed again")


def test_where_there_are_no_ranges_it_goes_on_with_one_connection(tries: Tries) -> None:
    assert _failed(tries, Kind.NO_RANGES) == Next(anew=True)
    assert tries.lanes == 1
    # With a single connection it is a failure like any other.
    assert not _failed(tries, Kind.NO_RANGES).anew
    assert (tries.retries, tries.failures) == (2, 1)


def test_too_many_connections_are_halved_without_counting_as_failures(tries: Tries) -> None:
    lanes = []
    for connections in (16, 16, 2, 2):
        assert _failed(tries, Kind.TOO_MANY_LANES, connections=connections) == Next()
        lanes.append(tries.lanes)
        if tries.lanes == 1:
            break
    assert lanes == [8, 4, 1]
    assert (tries.retries, tries.failures) == (3, 0)
    # A server that refuses even one connection is tried again for a while, and then given up.
    _failed(tries, Kind.TOO_MANY_LANES, connections=1)
    _failed(tries, Kind.TOO_MANY_LANES, connections=1)
    with pytest.raises(DownloadError, match="it broke"):
        _failed(tries, Kind.TOO_MANY_LANES, connections=1)


def test_the_error_tells_what_was_tried(tries: Tries) -> None:
    for number in range(2):
        _failed(tries, Kind.TEMPORARY, reason=f"failure {number}")
    with pytest.raises(DownloadError) as caught:
        _failed(tries, Kind.TEMPORARY, reason="the last one")
    assert caught.value.tried == ("failure 0", "failure 1", "the last one")
