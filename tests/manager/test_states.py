"""A table lists the moves between the states of a download: each listed move works, and no other does."""

import itertools

import pytest

from rangefetch import DownloadStatus
from rangefetch.errors import HttpStatusError
from rangefetch.options import DownloadOptions
from rangefetch.transfer.download import MOVES, Download

LISTED = [(before, after) for before, states in MOVES.items() for after in sorted(states)]
UNLISTED = [pair for pair in itertools.product(DownloadStatus, DownloadStatus) if pair not in LISTED]


def _way_to(status: DownloadStatus) -> list[DownloadStatus]:
    """The shortest sequence of moves by which a new download gets to ``status``."""
    ways: list[list[DownloadStatus]] = [[]]
    for way in ways:
        here = way[-1] if way else DownloadStatus.WAITING
        if here is status:
            return way
        ways += [[*way, further] for further in sorted(MOVES[here]) if further not in way]
    raise AssertionError(f"no moves lead to {status}")


def _download_that_is(status: DownloadStatus) -> Download:
    download = Download("http://host/", DownloadOptions())
    for each in _way_to(status):
        download.move(each)
    assert download.status is status
    return download


def test_every_state_is_in_the_table_and_can_be_reached() -> None:
    assert set(MOVES) == set(DownloadStatus)
    for status in DownloadStatus:
        _download_that_is(status)


def test_what_is_complete_or_removed_stays_so() -> None:
    assert MOVES[DownloadStatus.COMPLETE] == MOVES[DownloadStatus.REMOVED] == frozenset()


@pytest.mark.parametrize(("before", "after"), LISTED)
def test_a_listed_move_works_and_is_told_to_who_watches(before: DownloadStatus, after: DownloadStatus) -> None:
    download = _download_that_is(before)
    told: list[DownloadStatus] = []
    download.watch(lambda moved: told.append(moved.status))
    download.move(after)
    assert download.status is after
    assert told == [after]


@pytest.mark.parametrize(("before", "after"), UNLISTED)
def test_another_move_is_refused_and_changes_nothing(before: DownloadStatus, after: DownloadStatus) -> None:
    download = _download_that_is(before)
    told: list[DownloadStatus] = []
    download.watch(lambda moved: told.append(moved.status))
    with pytest.raises(ValueError, match=rf"{download.gid}.*{before}.*{after}"):
        download.move(after)
    assert download.status is before
    assert told == []


def test_an_error_is_forgotten_when_the_download_waits_again() -> None:
    download = _download_that_is(DownloadStatus.ACTIVE)
    error = HttpStatusError("404", status=404)
    download.move(DownloadStatus.ERROR, error=error)
    assert download.error is error
    download.move(DownloadStatus.WAITING)
    assert download.error is None


def test_a_new_download_waits_under_a_gid_of_its_own() -> None:
    downloads = [Download("http://host/", DownloadOptions()) for _ in range(100)]
    assert {download.status for download in downloads} == {DownloadStatus.WAITING}
    gids = {download.gid for download in downloads}
    assert len(gids) == 100
    assert all(len(gid) == 16 and int(gid, 16) >= 0 for gid in gids)
