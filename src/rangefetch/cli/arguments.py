"""What was typed: aria2c's option vocabulary, read into options that have been checked.

The options that say how to fetch have :class:`DownloadOptions`' names as their ``dest``: they are handed over
as they are, and what is said about a wrong one is repeated in the command line's words.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from rangefetch.cli.display import printable
from rangefetch.options import DownloadOptions, check_url

__all__ = ["USAGE_ERROR", "Request", "parse"]

USAGE_ERROR = 2

_FIELDS = {field.name: field.default for field in dataclasses.fields(DownloadOptions)}
_TRUTH = {"true": True, "false": False}
_MOST_DOWNLOADS_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One command line, understood and checked.

    ``urls`` are all different; ``repeated`` are those of them that were typed more than once.
    """

    urls: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    options: DownloadOptions = dataclasses.field(default_factory=DownloadOptions)
    max_concurrent_downloads: int = 5
    quiet: bool = False
    json: bool = False
    version: bool = False


def parse(argv: Sequence[str] | None = None) -> Request:
    """The request in ``argv`` (by default the process's own).

    ``--help`` and a wrong command line end in ``SystemExit``, the latter with status 2 and one line on stderr
    that names the option.
    """
    parser = _parser()
    words = list(sys.argv[1:] if argv is None else argv)
    # argparse would read what follows "--" as options after all, where URLs and options may be mixed.
    end = words.index("--") if "--" in words else len(words)
    words, after = words[:end], words[end + 1 :]
    typed = parser.parse_intermixed_args(_spell_booleans_as_flags(parser, words))
    given = {name: value for name, value in vars(typed).items() if value is not None}
    if given.get("version"):
        return Request(version=True)
    if given.get("continue") is False:
        parser.error("-c/--continue: to begin is to continue; remove the .part file to start afresh")

    if not 1 <= given.get("max_concurrent_downloads", 1) <= _MOST_DOWNLOADS_AT_ONCE:
        parser.error(
            f"-j/--max-concurrent-downloads: {given['max_concurrent_downloads']} is out of range; "
            f"1 to {_MOST_DOWNLOADS_AT_ONCE} is allowed"
        )
    urls = Counter(given["urls"] + after)
    try:
        options = DownloadOptions(**{name: value for name, value in given.items() if name in _FIELDS})
        for url in urls:
            check_url(url, "URL")
    except (TypeError, ValueError) as error:
        parser.error(_in_typed_words(parser, str(error)))
    if not urls:
        parser.error("no URL is given")
    if len(urls) > 1 and options.filename:
        parser.error(f"-o/--out: one name is given for {len(urls)} URLs")
    about_the_run = ("max_concurrent_downloads", "quiet", "json")
    return Request(
        urls=tuple(urls),
        repeated=tuple(url for url, times in urls.items() if times > 1),
        options=options,
        **{name: given[name] for name in about_the_run if name in given},
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say it in one line, without the usage that argparse would put before it."""
        message = printable(message.removeprefix("argument "))
        if message.startswith("-k/"):
            message += " (curl's -k is --insecure here)"
        self.exit(USAGE_ERROR, f"rangefetch: {message}\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="rangefetch",
        usage="%(prog)s [options] URL...",
        description="Fetch files over HTTP(S) with many connections each. What was interrupted is continued "
        "by the same command.",
        epilog="Sizes are 4M, 1.5G or bytes; options that are on or off may be written --option=true or "
        "--option=false. Exit status: 0 all is fetched, 1 something failed, 2 wrong usage, 130 interrupted.",
        # An abbreviation that is unique today would be ambiguous, or mean something else, tomorrow.
        allow_abbrev=False,
    )
    parser.add_argument("urls", nargs="*", metavar="URL", help="what to fetch; each URL is a file of its own")
    _add_places(parser)
    _add_connections(parser)
    _add_requests(parser)
    _add_speech(parser)
    return parser


def _add_places(parser: _Parser) -> None:
    group = parser.add_argument_group("where the file goes, and what proves it")
    add = group.add_argument
    add("-d", "--dir", "--output-dir", dest="save_dir", metavar="DIR", help="the directory (this one)")
    add("-o", "--out", dest="filename", metavar="NAME", help="the name in it (the server's, else the URL's)")
    add(
        "--allow-overwrite",
        dest="overwrite",
        action=argparse.BooleanOptionalAction,
        help="replace another file that has the name",
    )
    add(
        "-c",
        "--continue",
        action=argparse.BooleanOptionalAction,
        help="continue what was interrupted: accepted for aria2c's sake, and always on",
    )
    add(
        "--file-allocation",
        metavar="HOW",
        help=f"falloc reserves the space, trunc sets the length, none neither ({_FIELDS['file_allocation']})",
    )
    add("--checksum", metavar="TYPE=HEX", help="sha-256=... (or md5, sha-1, sha-384, sha-512, blake2b)")


def _add_connections(parser: _Parser) -> None:
    group = parser.add_argument_group("how many connections")
    add = group.add_argument
    add(
        "-x",
        "--max-connection-per-server",
        metavar="N",
        type=_whole_number,
        help=f"at most N to one server ({_FIELDS['max_connection_per_server']})",
    )
    add("-s", "--split", metavar="N", type=_whole_number, help=f"at most N for a file ({_FIELDS['split']})")
    add(
        "-k",
        "--min-split-size",
        metavar="SIZE",
        help=f"a further connection for each SIZE that is left ({_FIELDS['min_split_size']})",
    )
    add(
        "-j",
        "--max-concurrent-downloads",
        metavar="N",
        type=_whole_number,
        help=f"at most N files at once ({Request().max_concurrent_downloads})",
    )


def _add_requests(parser: _Parser) -> None:
    group = parser.add_argument_group("how it asks, and how long it tries")
    add = group.add_argument
    add(
        "-H",
        "--header",
        dest="headers",
        metavar="'NAME: VALUE'",
        action="append",
        help="a request header; may be repeated",
    )
    add("-U", "--user-agent", metavar="TEXT", help=f"({_FIELDS['user_agent']})")
    add("--load-cookies", dest="cookies", metavar="FILE", help="cookies in Netscape's format")
    add("--all-proxy", "--proxy", dest="proxy", metavar="URL", help="(the environment's)")
    add("--http-version", metavar="VERSION", help=f"1.1, 2 or 3 ({_FIELDS['http_version']})")
    add(
        "--ca-certificate",
        "--cacert",
        dest="ca_file",
        metavar="FILE",
        help="certificates to trust, PEM (the environment's or the system's)",
    )
    add(
        "--check-certificate",
        dest="verify_tls",
        action=argparse.BooleanOptionalAction,
        help="verify the server's certificate (true)",
    )
    add(
        "--insecure",
        dest="verify_tls",
        action="store_const",
        const=False,
        help="do not: the same as --check-certificate=false",
    )
    add(
        "--connect-timeout",
        metavar="SECONDS",
        type=_seconds,
        help=f"give up connecting after ({_FIELDS['connect_timeout']:g})",
    )
    add(
        "-t",
        "--timeout",
        dest="read_timeout",
        metavar="SECONDS",
        type=_seconds,
        help=f"give up a connection that sent no byte for ({_FIELDS['read_timeout']:g})",
    )
    add(
        "-m",
        "--max-tries",
        metavar="N",
        type=_whole_number,
        help=f"failures in a row without progress before a file fails; 0: no limit ({_FIELDS['max_tries']})",
    )
    add(
        "--retry",
        dest="max_tries",
        metavar="N",
        type=_one_more,
        help="the same in curl's count, which leaves out the first: --retry 4 is --max-tries 5",
    )


def _add_speech(parser: _Parser) -> None:
    group = parser.add_argument_group("what it says")
    add = group.add_argument
    add("-q", "--quiet", action=argparse.BooleanOptionalAction, help="nothing but errors on stderr")
    add(
        "--json",
        action=argparse.BooleanOptionalAction,
        help="on stdout one JSON object for each file, fetched or failed, instead of the paths",
    )
    add(
        "-v",
        "--version",
        action="store_true",
        default=None,
        help="the version, and which libcurl is in use and from where",
    )


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _one_more(text: str) -> int:
    retries = _whole_number(text)
    if retries < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 0")
    return retries + 1


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None


def _spell_booleans_as_flags(parser: _Parser, words: Sequence[str]) -> list[str]:
    """aria2's ``--name=true`` and ``--name=false`` as ``--name`` and ``--no-name``.

    A value that may be left out (argparse's ``nargs="?"``) would swallow the URL after a bare ``--name``.
    """
    switches = {
        name
        for action in parser._actions
        if isinstance(action, argparse.BooleanOptionalAction)
        for name in action.option_strings
        if name.startswith("--") and not name.startswith("--no-")
    }
    spelled: list[str] = []
    for word in words:
        name, has_value, value = word.partition("=")
        if has_value and name in switches:
            if value not in _TRUTH:
                parser.error(f"{name}: {value!r} is neither true nor false")
            word = name if _TRUTH[value] else f"--no-{name[2:]}"
        spelled.append(word)
    return spelled


def _in_typed_words(parser: _Parser, message: str) -> str:
    """``min_split_size: 'x' is not a size`` -> ``-k/--min-split-size: 'x' is not a size``."""
    typed: dict[str, Any] = {}
    for action in parser._actions:
        if action.option_strings:
            typed.setdefault(action.dest, action.option_strings)
    field, colon, rest = message.partition(":")
    if field in typed:
        field = "/".join(typed[field])
    # Only names with an underscore are surely names: "split" and "proxy" are words too.
    return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda name: typed.get(name[0], [name[0]])[0], field + colon + rest)
