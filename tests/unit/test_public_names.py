"""The names that other programs rely on, and what importing them costs."""

from __future__ import annotations

import pkgutil
import sys

import pytest

import rangefetch
from support import children

PUBLIC = [
    "DownloadError",
    "DownloadManager",
    "DownloadOptions",
    "DownloadProgress",
    "DownloadResult",
    "DownloadStatus",
    "Fetched",
    "FileInfo",
    "ManifestError",
    "ManifestItem",
    "RetryPolicy",
    "Run",
    "Shards",
    "__version__",
    "aio",
    "errors",
    "fetch",
    "fetch_iter",
    "fetch_many",
    "get_download_manager",
    "head",
    "init_download_manager",
    "read_manifest",
    "stream",
]

HEAVY = ["_engine", "asyncio", "concurrent.futures", "dataclasses", "inspect", "json", "logging", "numpy", "psutil"]
HEAVY += ["pycurl", "rich", "socket", "ssl"]


def test_these_are_the_public_names() -> None:
    assert rangefetch.__all__ == PUBLIC
    assert dir(rangefetch) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(rangefetch, name)
    assert value is getattr(rangefetch, name)
    if callable(value):
        assert value.__doc__
        assert value.__name__ == name


@pytest.mark.parametrize("name", ["libcurl", "retry", "state"])
def test_a_module_that_programs_use_is_there_wherever_it_lives(name: str) -> None:
    module = getattr(rangefetch, name)
    assert module.__name__.startswith("rangefetch.")
    assert module is sys.modules[module.__name__]


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"^module 'rangefetch' has no attribute 'nonsense'$"):
        _ = rangefetch.nonsense


def test_importing_the_package_loads_next_to_nothing() -> None:
    done = children.run(
        """
        import sys, __future__
        before = set(sys.modules)
        import rangefetch
        print(*sorted(set(sys.modules) - before))
        rangefetch.__version__, dir(rangefetch), rangefetch.__all__
        print(*sorted(name for name in set(sys.modules) - before if name.startswith("rangefetch")))
        """
    )
    assert (done.stdout, done.stderr) == (2 * "rangefetch rangefetch.importing rangefetch.version\n", "")


def test_the_types_and_errors_load_nothing_heavy() -> None:
    done = children.run(
        """
        import sys
        from rangefetch import DownloadOptions, DownloadProgress, DownloadResult, DownloadStatus, errors
        DownloadOptions(min_split_size="4M")
        print(*sorted(set(sys.argv[1:]) & set(sys.modules)))
        """,
        *HEAVY,
    )
    assert (done.stdout, done.stderr) == ("\n", "")


def test_the_functions_load_nothing_that_only_a_few_use() -> None:
    done = children.run(
        """
        import sys
        from rangefetch import DownloadManager, fetch
        print(*sorted(set(sys.argv[1:]) & set(sys.modules)))
        """,
        *HEAVY,
    )
    assert (done.stdout, done.stderr) == ("\n", "")


EACH_FIRST = """
    import contextlib, importlib, os, sys, traceback

    def import_all(names):
        for name in names:
            importlib.import_module(name)

    # What others have made is imported once, for all forks: what ours need is known when all of them are imported.
    reads, writes = os.pipe()
    if not os.fork():
        import_all(sys.argv[1:])
        os.write(writes, " ".join(name for name in sys.modules if name.partition(".")[0] != "rangefetch").encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as told:
        for name in told.read().split():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    for name in sys.argv[1:]:
        if not os.fork():
            try:
                import_all([name])
            except BaseException:
                print(name, traceback.format_exc(), flush=True)
            os._exit(0)
        os.wait()
    """


def test_each_module_can_be_imported_first() -> None:
    found = pkgutil.walk_packages(rangefetch.__path__, "rangefetch.")
    names = [module.name for module in found if not module.name.endswith("__main__")]
    assert "rangefetch.cli.main" in names
    done = children.run(EACH_FIRST, *names, env={"PYTHONWARNINGS": "error", "OPENBLAS_NUM_THREADS": "1"})
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


OPERATIONS = [
    *("backend", "cancel", "cancel_all", "change_options", "download", "download_and_wait", "fallback_reason"),
    *("get_download_progress", "is_started", "limit", "list_downloads", "pause", "pause_all", "remove", "resume"),
    *("resume_all", "retry", "start", "stop", "wait"),
]


def test_a_manager_shows_its_operations_and_nothing_else() -> None:
    """Both managers have the same operations, and each has a docstring."""

    def shown(kind: type) -> list[str]:
        return [name for name in dir(kind) if not name.startswith("_")]

    blocking, aio = rangefetch.DownloadManager, rangefetch.aio.DownloadManager
    assert shown(blocking) == OPERATIONS
    assert shown(aio) == sorted([*OPERATIONS, "of", "progress"])
    assert all(getattr(kind, name).__doc__ for kind in (blocking, aio) for name in shown(kind))
