"""fsspec's generic tests of ``get``, run on a file system that fetches its files with rangefetch.

The project has no adapter for fsspec, and needs none: it is enough that ``get_file`` calls ``fetch``, as here. The
directories are those of a folder that a local server serves, since HTTP has no directories.
"""

import functools
import http.server
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec.tests.abstract as abstract
import pytest
from fsspec import AbstractFileSystem
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.implementations.local import LocalFileSystem

from rangefetch import fetch
from servers.background import Background, Handler


class _Files(Handler, http.server.SimpleHTTPRequestHandler):
    pass


class ServedFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A folder behind a server: names are looked up in the folder, bytes are fetched from the server."""

    cachable = False
    root_marker = "/"

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__()
        self._folder = str(folder)
        self._port = port
        self._local = LocalFileSystem(auto_mkdir=True)

    def _there(self, path: str) -> str:
        return self._folder + "/" + str(self._strip_protocol(path)).lstrip("/")

    def _seen(self, entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"name": entry["name"].removeprefix(self._folder) or "/"}

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return self._seen(self._local.info(self._there(path)))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        entries = [self._seen(entry) for entry in self._local.ls(self._there(path), detail=True)]
        return entries if detail else [entry["name"] for entry in entries]

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        self._local.mkdir(self._there(path), create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._local.makedirs(self._there(path), exist_ok)

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        self._local.touch(self._there(path), truncate)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        self._local.pipe_file(self._there(path), value, mode)

    def rm_file(self, path: str) -> None:
        self._local.rm(self._there(path), recursive=True)

    def get_file(self, rpath: str, lpath: str, callback: Any = DEFAULT_CALLBACK, **_: Any) -> None:
        if self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)  # noqa: PTH103 - a string, as fsspec has it
            return
        os.makedirs(os.path.dirname(lpath), exist_ok=True)  # noqa: PTH103, PTH120 - a string, as fsspec has it
        fetch(f"http://127.0.0.1:{self._port}{quote(str(self._strip_protocol(rpath)))}", lpath, overwrite=True)


class TestGet(abstract.AbstractFixtures, abstract.AbstractGetTests):  # type: ignore[misc]  # fsspec has no types
    @pytest.fixture
    def fs(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedFileSystem]:
        folder = tmp_path_factory.mktemp("served")
        handler = functools.partial(_Files, directory=str(folder))
        with Background(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
            yield ServedFileSystem(folder, server.port)

    @pytest.fixture
    def fs_path(self) -> str:
        return "/"
