"""Programs that some tests need and not every machine has."""

import os

import pytest

__all__ = ["require"]


def require(present: bool, package: str, variable: str) -> None:
    """Skips the test if its program is missing; fails it where the environment variable is 1."""
    if not present:
        how = f"{package} is not installed: apt-get install {package}"
        if os.environ.get(variable) == "1":
            pytest.fail(f"{how} (it must be there: {variable}=1)", pytrace=False)
        pytest.skip(how)
