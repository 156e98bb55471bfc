"""Test suites of other people's programs that use HTTP downloads or aria2, run with ours instead."""

from pathlib import Path

from third_party.obtaining import pypi_packages, pypi_source
from third_party.suites import run_suite

# Tests that fail with our daemon, and why.
ARIA2P = {
    "tests.test_client.TestClientClass::test_get_uris_method": "our daemon may use a URI for several connections",
    "tests.test_client.TestClientClass::test_multicall_method": "with a secret, aria2p wants parameters in each call",
}


def _decided(outcomes: dict[str, tuple[str, str]], failing: dict[str, str], at_least: int) -> None:
    """Check that only tests known to fail have failed, and that enough passed for this to be meaningful."""
    for name, (outcome, why) in outcomes.items():
        if outcome != "passed":
            print(outcome, name, why[:300])
    failed = {name for name, (outcome, _) in outcomes.items() if outcome == "failed"}
    passed = sum(outcome == "passed" for outcome, _ in outcomes.values())
    print(f"{passed} of {len(outcomes)} passed")
    assert failed == set(failing)
    assert passed >= at_least


def test_poochs_own_tests_pass_with_rangefetch_as_its_downloader(tmp_path: Path) -> None:
    packages = pypi_packages("pooch", ["pooch", "tqdm", "xxhash", "pytest-httpserver", "pytest-localftpserver"])
    outcomes = run_suite(
        "on_pooch", ["--pyargs", "pooch"], packages=packages, directory=tmp_path, report=tmp_path / "report.xml"
    )
    _decided(outcomes, {}, 100)


def test_fsspecs_own_tests_of_get_pass_on_a_file_system_of_rangefetchs(tmp_path: Path) -> None:
    packages = pypi_packages("fsspec", ["fsspec"])
    module = str(Path(__file__).with_name("plugins") / "on_fsspec.py")
    outcomes = run_suite("on_fsspec", [module], packages=packages, directory=tmp_path, report=tmp_path / "report.xml")
    _decided(outcomes, {}, 40)


def test_aria2ps_own_tests_pass_on_our_daemon(aria2c: Path, tmp_path: Path) -> None:
    packages = pypi_packages(
        "aria2p", ["aria2p", "fastapi", "griffe", "mkdocstrings", "pytest-rerunfailures", "responses", "uvicorn"]
    )
    source = pypi_source("aria2p")
    tests = [f"tests/test_{name}.py" for name in ("api", "client", "downloads", "options", "stats")]
    tests += ["--reruns=5", "--reruns-delay=0.1"]  # as aria2p runs them, since some depend on timing
    outcomes = run_suite("on_aria2p", tests, packages=packages, directory=source, report=tmp_path / "report.xml")
    _decided(outcomes, ARIA2P, 400)
