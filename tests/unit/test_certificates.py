"""Which CA certificates servers are verified with."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from rangefetch.net import certificates, libcurl
from rangefetch.net.certificates import Trust, find_ca_file, find_trust
from rangefetch.net.profiles import make_profile, profile_settings
from rangefetch.net.sources import Source
from rangefetch.options import DownloadOptions

FILES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
VARIABLES = (*FILES, "SSL_CERT_DIR", "CONDA_PREFIX")


@pytest.fixture
def no_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting or file says which certificates to trust."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(certificates, "_SYSTEM_CA_FILES", ())
    monkeypatch.setattr(certificates, "_told", set())
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path / "python"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "certifi", None)


@pytest.fixture
def every_bundle(no_bundle: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """All of them do. Returns the bundles, except the explicit one, in the order in which they are looked for."""
    for name in FILES:
        (tmp_path / name).touch()
        monkeypatch.setenv(name, str(tmp_path / name))
    system = [str(tmp_path / name) for name in ("missing", "first", "second")]
    for path in system[1:]:
        Path(path).touch()
    monkeypatch.setattr(certificates, "_SYSTEM_CA_FILES", tuple(system))
    condas = tmp_path / "conda/ssl/cacert.pem"
    condas.parent.mkdir(parents=True)
    condas.touch()
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "conda"))
    certifi = types.ModuleType("certifi")
    certifi.where = lambda: "certifi's"  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, "certifi", certifi)
    return [*(str(tmp_path / name) for name in FILES), *system[1:], str(condas), "certifi's"]


def test_the_explicit_bundle_comes_first(every_bundle: list[str]) -> None:
    assert find_ca_file("explicit") == "explicit"


def test_then_the_environment_the_system_conda_and_certifi(
    every_bundle: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for bundle in every_bundle:
        assert find_trust() == Trust(bundle)
        if (name := Path(bundle).name) in FILES:
            monkeypatch.setenv(name, "")  # an empty variable counts as unset
        elif bundle != "certifi's":
            Path(bundle).unlink()


def test_without_any_bundle_there_is_none(no_bundle: None) -> None:
    assert find_trust() == Trust()


def test_on_macos_the_system_itself_is_asked(every_bundle: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert find_ca_file() == every_bundle[0]
    for name in FILES:
        monkeypatch.delenv(name)
    assert find_trust() == Trust()


@pytest.mark.usefixtures("every_bundle")
def test_what_is_missing_is_passed_over_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    monkeypatch.setenv("SSL_CERT_DIR", "/no/such/directory")
    for _ in range(3):
        assert find_trust() == Trust(str(tmp_path / "CURL_CA_BUNDLE"))
    assert [record.getMessage().split(",")[0] for record in caplog.records] == [
        "SSL_CERT_DIR names /no/such/directory",
        "SSL_CERT_FILE names /no/such/file",
    ]


@pytest.mark.usefixtures("every_bundle")
def test_openssls_directory_is_beside_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = f"/no/such/directory:{tmp_path}"
    monkeypatch.setenv("SSL_CERT_DIR", listed)
    assert find_trust() == Trust(str(tmp_path / "SSL_CERT_FILE"), listed)
    for name in FILES:
        monkeypatch.delenv(name)
    assert find_trust() == Trust(str(tmp_path / "first"), listed)


@pytest.mark.usefixtures("every_bundle")
@pytest.mark.parametrize("name", ["CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_directory_in_the_place_of_a_bundle_is_all_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for each in FILES:
        monkeypatch.delenv(each)
    monkeypatch.setenv(name, str(tmp_path))
    assert find_trust() == Trust(directory=str(tmp_path))
    assert find_ca_file() == str(tmp_path / "first")  # for callers that cannot use a directory


@pytest.mark.usefixtures("every_bundle")
@pytest.mark.parametrize("own", [False, True])
def test_an_https_proxy_may_have_certificates_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    for each in FILES:
        monkeypatch.delenv(each)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    proxys = tmp_path / "proxys.pem"
    proxys.touch()
    libcurl.load()
    # 0 is NULL, so that libcurl does not use the file compiled into it either.
    servers = {"CAINFO": 0, "CAPATH": str(tmp_path)}
    of_proxy = {"PROXY_CAINFO": 0, "PROXY_CAPATH": str(tmp_path)}
    if own:
        of_proxy = {"PROXY_CAINFO": str(proxys)}
    options = DownloadOptions(proxy_ca_file=proxys if own else "")
    wanted = profile_settings(options, Source("https://h/"))
    assert {name: value for name, value in wanted.everywhere.settings if "CA" in name} == servers | of_proxy
    make_profile(wanted)  # libcurl accepts it
