"""``make quick``: the tests that need neither a server nor a clock, recognised by what their modules import."""

import types

import pytest

__all__ = ["pytest_itemcollected"]

_SERVERS = {"server", "other_server", "tls_server", "nginx", "aria2c", "certificates", "unrelated_certificates"}
_SLOW_MODULES = {"asyncio", "multiprocessing", "socket", "subprocess", "threading", "time"}
_SLOW_PACKAGES = ("aria2", "engine", "manager", "servers", "support")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the test if it is quick."""
    if isinstance(item, pytest.Function) and not _SERVERS & set(item.fixturenames) and not _is_slow(item.module):
        item.add_marker(pytest.mark.quick)


def _is_slow(module: types.ModuleType) -> bool:
    """Whether the module imports something that starts processes or servers, waits, or reads a clock."""
    for value in vars(module).values():
        name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None) or ""
        if name in _SLOW_MODULES or name.partition(".")[0] in _SLOW_PACKAGES:
            return True
    return False
