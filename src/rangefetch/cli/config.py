"""The configuration file: options that apply to every command, by their long names.

max-connection-per-server = 8
header = ["Accept-Language: de"]
check-certificate = true
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from rangefetch.cli.vocabulary import Switch, names_of, opposite

__all__ = ["ConfigError", "default_path", "read"]

_OF_ONE_RUN = frozenset(
    {
        "checksum",
        "conf",
        "conf_path",
        "expected_size",
        "filename",
        "input_file",
        "mirrors",
        "version",
        argparse.SUPPRESS,  # help
    }
)
"""Options (by ``dest``) that make sense only on the command line."""


class ConfigError(Exception):
    """An error in the configuration file. The message names the file and, if it is about one, the key."""


def default_path() -> Path | None:
    """The path of the file, below ``$XDG_CONFIG_HOME`` or else ``~/.config``; None if there is no home directory."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if Path(base).is_absolute():  # the XDG specification says to ignore relative paths
        return Path(base, "rangefetch", "config.toml")
    try:
        return Path.home() / ".config" / "rangefetch" / "config.toml"
    except RuntimeError:
        return None


def read(path: Path, actions: dict[str, argparse.Action], *, must_exist: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield each key of the file with the equivalent command-line words.

    ``actions`` are the options by name, such as ``--split``. Raises :class:`ConfigError` if the file is not TOML, a key
    is not an option, or a value has the wrong type.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if must_exist:
            raise ConfigError(f"{path}: {error.strerror}") from None
        return
    except OSError as error:
        if not must_exist and isinstance(error, PermissionError) and not _may_look_for(path):
            return  # another user's home directory, as in a container: treat the file as missing
        raise ConfigError(f"{path}: {error.strerror}") from None
    import tomllib

    try:
        values = tomllib.loads(text.decode())
    except ValueError as error:  # invalid TOML or invalid UTF-8
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    for key, value in values.items():
        action = actions.get(f"--{key}")
        if action is None or f"--{key}" not in names_of(action):
            raise ConfigError(f"{path}: {key}: unknown option")
        if action.dest in _OF_ONE_RUN:
            raise ConfigError(f"{path}: {key}: this belongs on the command line")
        yield key, _words(f"{path}: {key}", key, value, action)


def _may_look_for(path: Path) -> bool:
    """Whether this user may check that the file exists."""
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _words(place: str, key: str, value: object, action: argparse.Action) -> list[str]:
    if isinstance(action, Switch):
        if not isinstance(value, bool):
            raise ConfigError(f"{place}: {value!r} is neither true nor false")
        return [f"--{key}" if value else opposite(f"--{key}")]
    # argparse has no public name for this class.
    repeatable = isinstance(action, argparse._AppendAction)
    listed = value if repeatable and isinstance(value, list) else [value]
    for each in listed:
        if isinstance(each, bool) or not isinstance(each, (str, int, float)):
            kinds = "a string, a number or a list of them" if repeatable else "a string or a number"
            raise ConfigError(f"{place}: {each!r} is not {kinds}")
    return [f"--{key}={each}" for each in listed]
