"""Parses the command line, which uses aria2c's option names, into checked options.

The configuration file's options are put before those on the command line, which thus take precedence. Options about
fetching are passed to :class:`DownloadOptions` unchanged, and its error messages are repeated with the option names of
the command line.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rangefetch import records
from rangefetch.checks import HTTP, check_path, check_url, parse_size
from rangefetch.cli import config
from rangefetch.cli.vocabulary import USAGE_ERROR, Parser, Switch, names_of, opposite
from rangefetch.cli.vocabulary import make_parser as _parser
from rangefetch.options import DownloadOptions

__all__ = ["USAGE_ERROR", "Request", "parse", "spell_switches"]

_FIELDS = frozenset(field.name for field in records.fields(DownloadOptions))
_ABOUT_THE_RUN = (
    "backend",
    "explain",
    "json",
    "max_concurrent_downloads",
    "max_overall_download_limit",
    "network_wait",
    "prefer",
    "quiet",
    "save_results",
)
_ABOUT_THE_LIST = ("input_format", "base_url", "name_template", "strict", "ledger", "verify", "into_tar")
_FOR_A_RUN = {"verify": "--verify", "retry_failed": "--retry-failed", "into_tar": "--into-tar"}
_FOR_SHARDS = {"tar_count": "--tar-count", "tar_size": "--tar-size", "tar_json": "--tar-json"}
_COLUMNS = ("url", "name", "checksum", "size", "mirrors", "headers")
_FOR_ONE_URL = {"filename": "name", "mirrors": "mirror", "checksum": "checksum", "expected_size": "size"}
_MOST_DOWNLOADS_AT_ONCE = 1024


@records.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One command line, parsed and checked.

    ``urls`` are the URLs on the command line, without duplicates; ``repeated`` are those given more than once.
    ``listed`` is true if there is an input file; the fields from ``input_file`` on say how to read it.
    """

    urls: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    listed: bool = False
    for_one: tuple[tuple[str, str], ...] = ()
    """Options that were given but apply to a single file only, each with a noun for its value."""
    input_file: str = ""
    input_format: str = ""
    base_url: str = ""
    columns: Mapping[str, str] = records.field(default_factory=dict)
    name_template: str = ""
    strict: bool = False
    ledger: str = ""
    verify: bool = False
    retry_failed: tuple[str, ...] = ("transient",)
    into_tar: str = ""
    tar_limits: Mapping[str, int] = records.field(default_factory=dict)
    tar_json: bool = False
    save_results: str = ""
    options: DownloadOptions = records.field(default_factory=DownloadOptions)
    max_concurrent_downloads: int | None = None
    max_overall_download_limit: int = 0
    network_wait: float | None = None
    backend: str = "auto"
    prefer: str = "native"
    quiet: bool = False
    json: bool = False
    explain: bool = False
    version: bool = False


def _is_installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def parse(argv: Sequence[str] | None = None) -> Request:
    """Parse ``argv`` (by default the process's own) and the configuration file.

    ``--help`` and wrong usage raise ``SystemExit``, the latter with status 2 after one line on stderr that names the
    option, or the file and what is wrong in it.
    """
    parser = _parser()
    words = list(sys.argv[1:] if argv is None else argv)
    # When URLs and options are mixed, argparse parses the words after "--" as options, so they are split off here.
    end = words.index("--") if "--" in words else len(words)
    words, after = words[:end], words[end + 1 :]
    words = spell_switches(parser, words)
    typed = _given(parser.parse_intermixed_args(words))
    if typed.get("version"):
        return Request(version=True)
    configured = _configured(parser, typed)
    given = _given(parser.parse_intermixed_args(configured + words)) if configured else typed

    _check_run(given, parser.error)
    _join_auth(given, parser.error)
    try:
        options = DownloadOptions(**{name: value for name, value in given.items() if name in _FIELDS})
        for url in given["urls"] + after:
            check_url(url, "URL")
    except (TypeError, ValueError) as error:
        parser.error(_in_typed_words(parser, str(error)))
    if options.use_github_mirror and not options.github_mirrors:
        parser.error("--use-github-mirror: no mirror is given; use --github-mirror")
    if options.robots and not _is_installed("protego"):
        parser.error("--robots: needs a package: pip install 'rangefetch[robots]'")
    listed = "input_file" in given
    urls = Counter(given["urls"] + after)
    about_list = _about_the_list(given, parser) if listed else {}
    if not listed and "ledger" in given:
        parser.error("--run: needs a list (-i)")
    if not listed and "into_tar" in given:
        parser.error("--into-tar: needs a list (-i)")
    for dest, option in _FOR_SHARDS.items():
        if listed and given.get(dest) and "into_tar" not in given:
            parser.error(f"{option}: needs --into-tar")
    for dest, option in _FOR_A_RUN.items():
        if listed and given.get(dest) and "ledger" not in given:
            parser.error(f"{option}: needs --run")
    if not listed and not urls:
        parser.error("no URL given")
    for_one = [(dest, noun) for dest, noun in _FOR_ONE_URL.items() if getattr(options, dest)]
    if for_one and len(urls) > 1:
        dest, noun = for_one[0]
        parser.error(f"{_names_of(parser, dest)}: one {noun} cannot be used for {len(urls)} URLs")
    run = {name: given[name] for name in _ABOUT_THE_RUN if name in given}
    return Request(
        urls=tuple(urls),
        repeated=tuple(url for url, times in urls.items() if times > 1),
        listed=listed,
        for_one=tuple((_names_of(parser, dest), noun) for dest, noun in for_one),
        options=options,
        **about_list,
        **run,
    )


def _about_the_list(given: dict[str, Any], parser: Parser) -> dict[str, Any]:
    """The options about reading the list, checked as far as possible without opening it."""
    found: dict[str, Any] = {name: given[name] for name in _ABOUT_THE_LIST if name in given}
    if "retry_failed" in given:
        from rangefetch.running import is_class_of_failures

        found["retry_failed"] = tuple(given["retry_failed"])
        for name in found["retry_failed"]:
            if not is_class_of_failures(name):
                parser.error(f"--retry-failed: {name!r} is not transient, all, none, a status or a class of errors")
    try:
        if "into_tar" in given:
            from rangefetch.shards import Shards

            found["tar_json"] = given.get("tar_json", False)
            found["tar_limits"] = limits = {}
            if "tar_count" in given:
                limits["count"] = given["tar_count"]
            if "tar_size" in given:
                limits["size"] = parse_size(given["tar_size"], "--tar-size")
            Shards(given["into_tar"], **limits)
    except ValueError as error:
        parser.error(f"--into-tar: {error}")
    found["columns"] = {kind: given[f"{kind}_column"] for kind in _COLUMNS if f"{kind}_column" in given}
    try:
        found["input_file"] = check_path(given["input_file"], "-i/--input-file")
        if not found["input_file"]:
            raise ValueError("-i/--input-file: no file is given")
        if found["input_file"] != "-" and not found["input_file"].startswith(("http://", "https://")):
            os.stat(found["input_file"])  # noqa: PTH116 - opening a pipe would wait for its other end
        if "base_url" in found:
            check_url(found["base_url"], "--base-url", HTTP)
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"-i/--input-file: {found['input_file']}: {error.strerror}")
    return found


def _given(typed: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(typed).items() if value is not None}


def _check_run(given: dict[str, Any], fail: Callable[[str], NoReturn]) -> None:
    """Check options that :class:`DownloadOptions` does not have."""
    if given.get("continue") is False:
        fail("-c/--continue: resuming cannot be turned off; remove the .part file to start over")
    if not 1 <= given.get("max_concurrent_downloads", 1) <= _MOST_DOWNLOADS_AT_ONCE:
        fail(
            f"-j/--max-concurrent-downloads: {given['max_concurrent_downloads']} is out of range; "
            f"1 to {_MOST_DOWNLOADS_AT_ONCE} is allowed"
        )
    if "max_overall_download_limit" in given:
        try:
            limit = parse_size(given["max_overall_download_limit"], "--max-overall-download-limit")
        except ValueError as error:
            fail(str(error))
        given["max_overall_download_limit"] = limit


def _join_auth(given: dict[str, Any], fail: Callable[[str], NoReturn]) -> None:
    """Combine ``--http-user`` and ``--http-passwd`` into the option ``auth``."""
    user, password = given.pop("http_user", None), given.pop("http_passwd", "")
    if user is not None:
        given["auth"] = (user, password)
    elif password:
        fail("--http-passwd: needs --http-user")


def _configured(parser: Parser, typed: Mapping[str, Any]) -> list[str]:
    """The configuration file's options as command-line words, after each key has been checked by itself."""
    if typed.get("conf") is False:
        return []
    named = typed.get("conf_path")
    try:
        path = Path(check_path(named, "file")) if named is not None else config.default_path()
    except ValueError as error:
        parser.error(f"--conf-path: {error}")
    if path is None:
        return []
    all_words: list[str] = []
    try:
        for key, words in config.read(path, parser._option_string_actions, must_exist=named is not None):
            parser.place = f"{path}: {key}"
            given = _given(parser.parse_intermixed_args(words))
            _check_run(given, parser.error)
            DownloadOptions(**{name: value for name, value in given.items() if name in _FIELDS})
            all_words += words
    except config.ConfigError as error:
        parser.place = ""
        parser.error(str(error))
    except (TypeError, ValueError) as error:
        parser.error(str(error).partition(": ")[2])
    parser.place = ""
    return all_words


def spell_switches(parser: Parser, words: Sequence[str]) -> list[str]:
    """Replace aria2's ``--name=true`` and ``--name=false`` by ``--name`` and ``--no-name``; also ``--no-name=true``.

    An optional value (argparse's ``nargs="?"``) would not work: it would swallow the URL after a bare ``--name``.
    """
    # A single-letter option is negated by its long name.
    switches = {
        name: name if name.startswith("--") else next(each for each in action.option_strings if each.startswith("--"))
        for action in parser._actions
        if isinstance(action, Switch)
        for name in action.option_strings
    }
    spelled: list[str] = []
    for word in words:
        name, has_value, value = word.partition("=")
        if has_value and name in switches:
            if value not in ("true", "false"):
                parser.error(f"{name}: {value!r} is neither true nor false")
            word = name if value == "true" else opposite(switches[name])
        spelled.append(word)
    return spelled


def _names_of(parser: Parser, dest: str) -> str:
    return next("/".join(names_of(action)) for action in parser._actions if action.dest == dest)


def _in_typed_words(parser: Parser, message: str) -> str:
    """Convert ``min_split_size: 'x' is not a size`` to ``-k/--min-split-size: 'x' is not a size``."""
    typed: dict[str, Any] = {}
    for action in parser._actions:
        if action.option_strings:
            typed.setdefault(action.dest, names_of(action))
    field, colon, rest = message.partition(":")
    if field in typed:
        field = "/".join(typed[field])
    # Replace only names with an underscore: "split" and "proxy" may be ordinary words.
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda name: typed.get(name[0], [name[0]])[0], field + colon + rest)
