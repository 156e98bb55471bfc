"""The repr of managers and streams: what a reader wants to see, and no secrets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import rangefetch
from rangefetch import DownloadManager, aio
from servers.misbehaving import MisbehavingServer

SIZE = 1 << 20


def test_a_manager_shows_its_backend_and_its_downloads(server: MisbehavingServer, tmp_path: Path) -> None:
    manager = DownloadManager(defaults={"save_dir": tmp_path})
    assert repr(manager) == "<DownloadManager native, stopped: no downloads>"
    with manager:
        manager.wait(manager.download(server.url("/good/a.bin")))
        manager.pause(manager.download(server.url("/stall/b.bin")))
        assert repr(manager) == "<DownloadManager native, started: 1 complete, 1 paused>"


def test_so_does_one_for_asyncio() -> None:
    async def show() -> str:
        async with aio.DownloadManager() as manager:
            return repr(manager)

    assert asyncio.run(show()) == "<aio.DownloadManager native, started: no downloads>"


def test_a_stream_shows_its_url_and_how_far_it_was_read(server: MisbehavingServer) -> None:
    url = server.url("/good/a.bin")
    with rangefetch.stream(url.replace("://", "://me:secret@")) as stream:
        stream.read(1000)
        shown = url.replace("://", "://***@")
        assert repr(stream) == f"<stream of {shown}: 1000 of {SIZE} bytes read>"
        assert "secret" not in repr(stream.raw)
        assert stream.name == stream.raw.name == shown  # type: ignore[attr-defined]  # private: io.RawIOBase does not have it
    assert repr(stream) == f"<stream of {shown}: closed>"
