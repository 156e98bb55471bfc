"""Every option of a download and every keyword of a manager, on both backends.

An option has its effect, or the backend declares that it refuses the option, and does refuse it. A keyword has its
effect on both, unless it concerns the aria2c process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, DownloadOptions, DownloadStatus
from rangefetch.aria2.abilities import ABILITIES, Treatment
from rangefetch.aria2.config import DaemonOptions
from rangefetch.errors import HttpStatusError, LocalError, TlsError
from rangefetch.manager import ManagerOptions
from rangefetch.net.certificates import find_ca_file
from rangefetch.net.proxies import VARIABLES
from rangefetch.selection import CAPABILITIES
from rangefetch.transfer.download import Download
from rangefetch.transfer.failure import Fault
from rangefetch.transfer.retry import Kind, RetryPolicy, Row
from servers.counting import CountingServer
from servers.misbehaving import content
from support.downloads import QUICK, SIZE
from support.effects import EFFECTS, Refused, Scene
from support.waiting import until


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_every_option_has_an_effect_that_is_looked_for() -> None:
    assert list(EFFECTS) == [field.name for field in dataclasses.fields(DownloadOptions)]


BELONGS_TO = {"decode_limit": "decode", "private_key": "certificate"}
"""Options that have no effect without another one."""


@pytest.mark.parametrize("option", EFFECTS)
def test_an_option_has_its_effect_or_is_refused_as_declared(
    backend: str, manager: DownloadManager, scene: Scene, option: str
) -> None:
    treatment = ABILITIES[BELONGS_TO.get(option, option)].treatment
    refused = backend == "aria2" and treatment is Treatment.REFUSED

    def fetch(url: str, /, **options: Any) -> bytes:
        options = QUICK | {"save_dir": scene.place} | options
        why_not = CAPABILITIES[backend].why_not(Download(url, DownloadOptions(**options)))
        if why_not:
            with pytest.raises(LocalError) as caught:
                manager.download_and_wait(url, options)
            assert why_not in str(caught.value)
            raise Refused(why_not)
        return manager.download_and_wait(url, options).path.read_bytes()

    scene.fetch = fetch
    with pytest.raises(Refused) if refused else contextlib.nullcontext():
        EFFECTS[option](scene)


# -- the keywords of a manager -------------------------------------------------------------------------------------


def _place(scene: Scene, name: str = "x") -> dict[str, Any]:
    return QUICK | {"save_dir": scene.place, "filename": name}


def _max_concurrent_downloads(manage: Make, scene: Scene) -> None:
    with CountingServer(delay_s=0.1) as server, manage(max_concurrent_downloads=2) as manager:
        gids = [manager.download(server.url(n), _place(scene, str(n)) | {"split": 1}) for n in range(5)]
        most = 0
        while not all(manager.get_download_progress(gid).status is DownloadStatus.COMPLETE for gid in gids):
            most = max(most, len(manager.list_downloads(DownloadStatus.ACTIVE)))
    assert most == 2


def _max_overall_download_limit(manage: Make, scene: Scene) -> None:
    with manage(max_overall_download_limit=400_000) as manager:
        begun_s = time.monotonic()
        gids = [manager.download(scene.url(size=300_000, id=n), _place(scene, str(n))) for n in range(3)]
        for gid in gids:
            manager.wait(gid, 30)
    assert time.monotonic() - begun_s > 1


def _defaults(manage: Make, scene: Scene) -> None:
    with manage(defaults={"user_agent": "tests/1"}) as manager:
        manager.download_and_wait(scene.url(), DownloadOptions(**_place(scene)))
    assert scene.seen("user-agent") == {"tests/1"}


def _retry_policy(manage: Make, scene: Scene) -> None:
    policy = RetryPolicy().first(Row(Kind.PERMANENT, "it never passes here", Fault.STATUS, frozenset({503})))
    with manage(retry_policy=policy) as manager, pytest.raises(HttpStatusError):
        manager.download_and_wait(scene.url("status", code=503), _place(scene) | {"max_tries": 5})
    # A request without a range shows that the range is not the reason for the refusal.
    assert [request.range is None for request in scene.server.requests] == [False, True]


def _session_file(manage: Make, scene: Scene) -> None:
    path = scene.place.with_name("session")
    with manage(session_file=path) as manager:
        gid = manager.download(scene.server.url("/valve/x", size=SIZE), _place(scene))
        until(lambda: manager.get_download_progress(gid).downloaded > 0)
    scene.valve.open()
    with manage(session_file=path) as manager:
        assert manager.wait(gid, 30).path.read_bytes() == content(SIZE)


def _max_download_results(manage: Make, scene: Scene) -> None:
    with manage(max_download_results=1) as manager:
        for number in range(3):
            manager.download_and_wait(scene.url(size=1000), _place(scene, str(number)))
        assert [each.filename for each in manager.list_downloads()] == ["2"]


def _download_dir(manage: Make, scene: Scene) -> None:
    with manage(download_dir=scene.place) as manager:
        assert manager.download_and_wait(scene.url(), QUICK).path == scene.place / "x"


def _trusts(manage: Make, scene: Scene, **keywords: Any) -> None:
    url = scene.tls.url("/good/x", size=scene.size)
    with manage() as manager, pytest.raises(TlsError):
        manager.download_and_wait(url, _place(scene))
    with manage(**keywords) as manager:
        manager.download_and_wait(url, _place(scene))
        with pytest.raises(TlsError):
            manager.download_and_wait(url, _place(scene) | {"ca_file": find_ca_file(), "verify_tls": True})


def _ca_file(manage: Make, scene: Scene) -> None:
    _trusts(manage, scene, ca_file=scene.certificates.ca)


def _verify_tls(manage: Make, scene: Scene) -> None:
    _trusts(manage, scene, verify_tls=False)


KEYWORDS = {
    "max_concurrent_downloads": _max_concurrent_downloads,
    "max_overall_download_limit": _max_overall_download_limit,
    "defaults": _defaults,
    "retry_policy": _retry_policy,
    "session_file": _session_file,
    "max_download_results": _max_download_results,
    "download_dir": _download_dir,
    "ca_file": _ca_file,
    "verify_tls": _verify_tls,
}
OF_ARIA2C = {
    "aria2_path",
    "binary_sources",
    "binary_dir",
    "rpc_port",
    "rpc_secret",
    "state_dir",
    "max_restart_attempts",
    "health_check_interval",
    "restart_wait",
    "start_timeout",
    "stop_timeout",
    "extra_options",
}
"""What the engine has nothing of: which program is run, its RPC and its own files, and how it is looked after."""


def test_every_keyword_is_for_both_or_about_aria2c() -> None:
    assert KEYWORDS.keys() | OF_ARIA2C == ManagerOptions.__annotations__.keys() | DaemonOptions.__annotations__.keys()
    assert not OF_ARIA2C & KEYWORDS.keys()


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_of_a_manager_has_its_effect_on_both(manage: Make, scene: Scene, keyword: str) -> None:
    KEYWORDS[keyword](manage, scene)
