"""The command on machines that lack something: letters, a home, descriptors, threads, file systems."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.misbehaving import MisbehavingServer, content
from support.command_line import command, environment, errors, run
from support.files import names

SIZE = 3000
NAME = "naïve€.bin"
PATH = "/good/na%C3%AFve%E2%82%AC.bin"
# The locale of programs started by cron or in containers, with Python's UTF-8 mode and locale coercion turned off.
C_LOCALE: dict[str, Any] = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES: list[Any] = [
    pytest.param({"LC_ALL": "C"}, id="C"),
    pytest.param({"PYTHONIOENCODING": "ascii"}, id="ASCII output"),
    pytest.param(C_LOCALE, id="ASCII file names"),
    pytest.param(C_LOCALE | {"PYTHONIOENCODING": "ascii"}, id="ASCII"),
]


# ---- Letters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("locale", LOCALES)
def test_a_name_that_the_locale_has_no_letters_for(
    server: MisbehavingServer, place: Path, locale: Any, listed: bool
) -> None:
    urls = [server.url(PATH, size=SIZE), server.url("/good/plain.bin", size=SIZE, seed=1)]
    words = ["-i", "-"] if listed else urls
    for _ in range(2):
        said = run(place, *words, stdin="\n".join(urls) if listed else "", **locale)
        assert said.returncode == 0, said.stderr
        assert sorted(said.stdout.splitlines()) == sorted(str(place / name) for name in (NAME, "plain.bin"))
    assert "internal error" not in said.stderr
    assert names(place) == [NAME, "plain.bin"]
    assert (place / NAME).read_bytes() == content(SIZE)


def test_a_name_that_latin_1_has_no_letters_for_is_said_as_it_is_on_the_disk(
    server: MisbehavingServer, place: Path
) -> None:
    done = subprocess.run(
        command(server.url(PATH, size=SIZE)),
        cwd=place,
        env=environment(place, PYTHONIOENCODING="latin-1"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, os.fsencode(place / NAME) + b"\n")
    assert names(place) == [NAME]


@pytest.mark.parametrize("locale", LOCALES)
def test_json_has_the_letters_whatever_the_locale(server: MisbehavingServer, place: Path, locale: Any) -> None:
    told = json.loads(run(place, "--json", server.url(PATH, size=SIZE), **locale).stdout)
    assert (told["path"], told["filename"]) == (str(place / NAME), NAME)


@pytest.mark.parametrize("locale", LOCALES)
def test_names_that_the_user_gives(server: MisbehavingServer, place: Path, locale: Any) -> None:
    said = run(place, server.url("/good/x", size=SIZE), "-d", "süß", "-o", NAME, **locale)
    assert said.returncode == 0, said.stderr
    assert (place / "süß" / NAME).read_bytes() == content(SIZE)


def test_a_large_file_resumes_under_such_a_name(server: MisbehavingServer, place: Path) -> None:
    url = server.url("/cut" + PATH.removeprefix("/good"), size="9M", after="5M")
    run(place, "--max-tries=1", url, **C_LOCALE)
    said = run(place, server.url(PATH, size="9M"), **C_LOCALE)
    assert said.returncode == 0, said.stderr
    assert (place / NAME).read_bytes() == content("9M")


# ---- Descriptors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("listed", [False, True])
def test_closed_descriptors(server: MisbehavingServer, place: Path, closed: str, listed: bool) -> None:
    """Files and sockets opened later get the closed numbers, so no message may end up in a file or at a server."""
    urls = [server.url("/good/a.bin", size=SIZE), server.url("/good/b.bin", size="9M", seed=1)]
    urls.append(server.url("/status/c.bin", code=404))
    (place / "list").write_text("\n".join(urls))
    words = ["-i", "list"] if listed else urls
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command(*words)]
    done = subprocess.run(shell, cwd=place, env=environment(place), capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert (place / "a.bin").read_bytes() == content(SIZE)
    assert (place / "b.bin").read_bytes() == content("9M", 1)
    assert names(place) == ["a.bin", "b.bin", "list"]


def test_a_list_from_a_closed_stdin_is_one_line(place: Path) -> None:
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *command("-i", "-")]
    done = subprocess.run(shell, cwd=place, env=environment(place), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, b"rangefetch: -i/--input-file: standard input is closed\n")


# ---- Homes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["/nonexistent", "/dev/null", ""])
def test_a_home_that_is_none(server: MisbehavingServer, place: Path, home: str) -> None:
    said = run(place, server.url("/good/x", size=SIZE), "--netrc", HOME=home)
    assert (said.returncode, errors(said)) == (0, [])


def test_a_user_without_an_entry_and_without_a_home(server: MisbehavingServer, place: Path) -> None:
    """Containers start programs like this, under a user id that no user has."""
    place.chmod(0o777)
    for words in ([], ["--netrc"]):
        said = _as_nobody(place, server.url("/good/x", size=SIZE), *words)
        assert (said.returncode, errors(said)) == (0, [])
    [line] = errors(_as_nobody(place, server.url("/good/x", size=SIZE), "--dir=~/x"))
    assert "no home directory" in line


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody can reach and write to."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)


def test_a_configuration_that_nobody_may_look_for_is_none(server: MisbehavingServer, public: Path) -> None:
    closed = public / "closed"
    closed.mkdir(mode=0o000)
    url = server.url("/good/x", size=SIZE)
    said = _as_nobody(public, url, reads_all=False, HOME=str(closed))
    assert (said.returncode, errors(said)) == (0, [])


def test_a_configuration_that_may_not_be_read_is_named(server: MisbehavingServer, public: Path) -> None:
    file = public / "rangefetch" / "config.toml"
    file.parent.mkdir()
    file.touch(mode=0o000)
    said = _as_nobody(public, server.url("/good/x"), reads_all=False, XDG_CONFIG_HOME=str(public))
    assert said.returncode == 2
    assert errors(said) == [f"rangefetch: {file}: Permission denied"]


# ---- Temporary directories, /proc, /dev/shm ---------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "aria2"])
def test_no_temporary_directory(server: MisbehavingServer, place: Path, aria2c: Path, backend: str) -> None:
    url = server.url("/good/x", size=SIZE)
    said = run(place, url, "--backend", backend, TMPDIR="/nonexistent", XDG_STATE_HOME=str(place / "state"))
    assert said.returncode == 0, said.stderr


@pytest.mark.parametrize("missing", ["/proc", "/dev/shm", "/dev"])
@pytest.mark.parametrize("listed", [False, True])
def test_file_systems_that_are_not_there(server: MisbehavingServer, place: Path, missing: str, listed: bool) -> None:
    """An empty, read-only file system is mounted over each of them."""
    urls = [server.url("/good/a.bin", size=SIZE), server.url("/good/b.bin", size="9M", seed=1)]
    (place / "list").write_text("\n".join(urls))
    hidden = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o ro none {missing} && exec "$@"', "sh"]
    probe = subprocess.run([*hidden, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("this user may not mount file systems")
    done = subprocess.run(
        [*hidden, *command(*(["-i", "list"] if listed else urls))],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert names(place) == ["a.bin", "b.bin", "list"]
    assert (place / "b.bin").read_bytes() == content("9M", 1)


def test_aria2_says_that_it_needs_proc(server: MisbehavingServer, place: Path, aria2c: Path) -> None:
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro none /proc && exec "$@"', "sh"]
    if subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount file systems")
    done = subprocess.run(
        [*hidden, *command("--backend", "aria2", server.url("/good/x", size=SIZE))],
        cwd=place,
        env=environment(place, XDG_STATE_HOME=str(place / "state")),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "rangefetch: the aria2 backend needs /proc, which is not mounted here\n"


# ---- A current directory that was removed --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "aria2"])
@pytest.mark.parametrize("listed", [False, True])
def test_a_current_directory_that_is_gone(
    server: MisbehavingServer, place: Path, aria2c: Path, backend: str, listed: bool
) -> None:
    """Downloads into another directory do not need it; for others, the error is one line."""
    (place / "list").write_text(server.url("/good/x", size=SIZE))
    words = ["--backend", backend, *(["-i", place / "list"] if listed else [server.url("/good/x", size=SIZE)])]
    left = place / "left"
    outcomes = []
    for more in ([], ["-d", "into"], ["-d", place / "into"]):
        left.mkdir()
        gone = ["sh", "-c", 'rmdir ../left && exec "$@"', "sh", *command(*words, *more)]
        given = environment(place, PWD=str(left), XDG_STATE_HOME=str(place / "state"))
        done = subprocess.run(gone, cwd=left, env=given, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        outcomes.append((done.returncode, [line for line in done.stderr.splitlines() if "current directory" in line]))
    assert [status for status, _ in outcomes] == [1, 1, 0]
    assert [len(lines) for _, lines in outcomes] == [1, 1, 0]
    assert (place / "into" / "x").read_bytes() == content(SIZE)


# ---- Threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listed", [False, True])
def test_few_threads_are_enough_or_that_is_said(server: MisbehavingServer, place: Path, listed: bool) -> None:
    """The limit (``ulimit -u``) applies to a user, here one who runs nothing but this command."""
    place.chmod(0o777)
    url = server.url("/good/x", size=SIZE)
    outcomes = set()
    for most in range(1, 11):  # reading the list from a pipe takes one more thread
        out = _open(place / str(most))
        said = _as_nobody(place, *(["-i", "-"] if listed else [url]), "-d", out, threads=most, stdin=url)
        outcomes.add(said.returncode)
        if said.returncode == 0:
            assert (out / "x").read_bytes() == content(SIZE)
        else:
            [line] = errors(said)
            assert "thread" in line
            assert "internal error" not in line
    assert outcomes == {0, 1}


# ---- Another user ------------------------------------------------------------------------------------------------


def _open(directory: Path) -> Path:
    """Make a directory that everybody can write to."""
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def _as_nobody(
    place: Path, *words: object, reads_all: bool = True, threads: int = 0, stdin: str = "", **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user without passwd entry, groups, home or capabilities, except that it can read all files
    if ``reads_all``."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root may become another user (setpriv)")
    variables = {name: value for name, value in environment(place, **changes).items() if changes or name != "HOME"}
    rights = "-all,+dac_read_search"
    # A limit on threads applies to the user, so no other test may use this id at the same time.
    number = 54321 + os.getpid() % 10_000
    user = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups"]
    more = [f"--inh-caps={rights}", f"--ambient-caps={rights}", f"--bounding-set={rights}"]
    program = command(*words)
    if not reads_all:
        # Only root can read the modules' directory, so the program loads them before it gives up its capabilities.
        program[1:3] = ["-c", _GIVES_UP]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (threads, threads))

    done = subprocess.run(
        [*user, *more, *program],
        cwd=place,
        env=variables,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=limit if threads else None,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


_GIVES_UP = """
import ctypes, importlib, pathlib, sys, rangefetch
from importlib import import_module
import argparse, encodings.idna, gettext, json, locale, logging, netrc, tomllib
for path in pathlib.Path(rangefetch.__file__).parent.rglob("*.py"):
    name = ".".join(path.relative_to(pathlib.Path(rangefetch.__file__).parents[1]).with_suffix("").parts)
    if not name.endswith(("__init__", "__main__")):
        import_module(name)
from rangefetch.net import libcurl
libcurl.load()
import rangefetch._engine
ctypes.CDLL(None).syscall(126, (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())  # capset(2): none
from rangefetch.cli.main import main
main()
"""
