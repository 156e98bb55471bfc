"""The words of the command line: each option's names, what it takes and what it means, for argparse.

The options that say how to fetch have :class:`DownloadOptions`' names as their ``dest``.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import NoReturn

from rangefetch.cli.display import printable
from rangefetch.options import DownloadOptions

__all__ = ["MOST_AT_ONCE", "USAGE_ERROR", "Parser", "make_parser", "masked"]

USAGE_ERROR = 2

MOST_AT_ONCE = 16
"""Files at once where nothing is said: as many as a manager's default."""

_FIELDS = {field.name: field.default for field in dataclasses.fields(DownloadOptions)}
_USERINFO = re.compile(r"//[^/?#]*@")


def masked(text: str) -> str:
    """The text without users and passwords of the URLs in it, also of URLs that are none."""
    return _USERINFO.sub("//***@", text)


class Parser(argparse.ArgumentParser):
    """``error`` says what is wrong in one line, without the usage that argparse would put before it."""

    place = ""
    """Where the words that are being parsed come from, if not from the command line: ``FILE: KEY``."""

    def error(self, message: str) -> NoReturn:
        message = printable(masked(message.removeprefix("argument ")))
        if self.place:
            message = f"{self.place}: {message}"
        elif message.startswith("-k/"):
            message += " (curl's -k is --insecure here)"
        self.exit(USAGE_ERROR, f"rangefetch: {message}\n")


def make_parser() -> Parser:
    parser = Parser(
        prog="rangefetch",
        usage="%(prog)s [options] [-i FILE] [URL...]",
        description="Fetch files over HTTP(S) with many connections each. What was interrupted is continued "
        "by the same command.",
        epilog="Sizes are 4M, 1.5G or bytes; options that are on or off may be written --option=true or "
        "--option=false. The long names are the keys of the configuration file, too. Exit status: 0 all is fetched, "
        "1 something failed, 2 wrong usage, 130 interrupted.",
        # An abbreviation that is unique today would be ambiguous, or mean something else, tomorrow.
        allow_abbrev=False,
    )
    parser.add_argument("urls", nargs="*", metavar="URL", help="what to fetch; each URL is a file of its own")
    _add_sources(parser)
    _add_places(parser)
    _add_connections(parser)
    _add_limits(parser)
    _add_requests(parser)
    _add_patience(parser)
    _add_backends(parser)
    _add_speech(parser)
    return parser


def _add_sources(parser: Parser) -> None:
    group = parser.add_argument_group("where it comes from, besides the URLs")
    add = group.add_argument
    add(
        "-i",
        "--input-file",
        metavar="FILE",
        help="fetch the URLs in FILE, too, one a line; - is stdin, # begins a line that is a comment",
    )
    add(
        "--mirror",
        dest="mirrors",
        metavar="URL",
        action="append",
        help="a further URL of the same file, used once some of its bytes were compared; may be repeated, for one URL",
    )
    add(
        "--github-mirror",
        dest="github_mirrors",
        metavar="RULE",
        action="append",
        help="a mirror of GitHub: https://PREFIX/ goes before its URLs, https://FROM/=https://TO/ replaces their "
        "head; may be repeated",
    )
    add(
        "--use-github-mirror",
        action=argparse.BooleanOptionalAction,
        help="fetch GitHub's files from those mirrors, too",
    )


def _add_places(parser: Parser) -> None:
    group = parser.add_argument_group("where the file goes, and what proves it")
    add = group.add_argument
    add("-d", "--dir", "--output-dir", dest="save_dir", metavar="DIR", help="the directory, made if missing (this one)")
    add("-o", "--out", dest="filename", metavar="NAME", help="the name in it (the server's, else the URL's)")
    add(
        "--allow-overwrite",
        dest="overwrite",
        action=argparse.BooleanOptionalAction,
        help="replace another file that has the name",
    )
    add(
        "--no-clobber",
        dest="overwrite",
        action="store_const",
        const=False,
        help="do not: the same as --allow-overwrite=false, and the default",
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
    add("--expected-size", metavar="SIZE", help="a file of another size is refused")
    add(
        "--durable",
        action=argparse.BooleanOptionalAction,
        help="sync the file to the disk before it gets its name",
    )


def _add_connections(parser: Parser) -> None:
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
        help=f"at most N files at once ({MOST_AT_ONCE})",
    )


def _add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("how fast at most, in bytes a second; 0: no limit")
    add = group.add_argument
    add("--max-download-limit", "--limit-rate", metavar="SIZE", help="each file (0)")
    add("--max-overall-download-limit", metavar="SIZE", help="all files together (0)")


def _add_requests(parser: Parser) -> None:
    group = parser.add_argument_group("how it asks")
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
    add("--referer", dest="headers", metavar="URL", action="append", type=_referer, help="the header Referer")
    add(
        "--netrc",
        action=argparse.BooleanOptionalAction,
        help="take user and password from ~/.netrc (false)",
    )
    add("--netrc-path", dest="netrc", metavar="FILE", help="take them from this file")
    add("--load-cookies", dest="cookies", metavar="FILE", help="cookies in Netscape's format")
    add("--all-proxy", "--proxy", dest="proxy", metavar="URL", help="(the environment's)")
    add("--no-proxy", metavar="HOSTS", help="hosts that are asked without a proxy, comma-separated")
    add("--interface", dest="bind_address", metavar="NAME", help="the interface or address of this machine to use")
    add("--ip-version", metavar="VERSION", help="4 or 6 (either)")
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
        "--allow-downgrade",
        action=argparse.BooleanOptionalAction,
        help="follow a redirect from https to http (false)",
    )


def _add_patience(parser: Parser) -> None:
    group = parser.add_argument_group("how long it tries")
    add = group.add_argument
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
        "--total-timeout",
        "--max-time",
        metavar="SECONDS",
        type=_seconds,
        help="give up a file that is not complete after; 0: never (0)",
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
    add(
        "--retry-wait",
        "--retry-delay",
        metavar="SECONDS",
        type=_seconds,
        help=f"wait about so long before the first retry, then longer ({_FIELDS['retry_wait']:g})",
    )


def _add_backends(parser: Parser) -> None:
    group = parser.add_argument_group("what does it, and by which settings")
    add = group.add_argument
    add("--backend", choices=("auto", "native", "aria2"), help="auto: the first that can (auto)")
    add("--prefer", choices=("native", "aria2"), help="which auto tries first (native)")
    add(
        "--conf-path",
        metavar="FILE",
        help="the configuration file ($XDG_CONFIG_HOME/rangefetch/config.toml, else in ~/.config)",
    )
    add("--no-conf", action="store_true", default=None, help="read no configuration file")


def _add_speech(parser: Parser) -> None:
    group = parser.add_argument_group("what it says")
    add = group.add_argument
    add("-q", "--quiet", action=argparse.BooleanOptionalAction, help="nothing but errors on stderr")
    add(
        "--json",
        action=argparse.BooleanOptionalAction,
        help="on stdout one JSON object for each file, fetched or failed, instead of the paths",
    )
    add(
        "--explain",
        action=argparse.BooleanOptionalAction,
        help="say what a download is waiting for, and of each file that was fetched what bound its speed",
    )
    add("--trace", metavar="FILE", help="add a JSON line to FILE for each transfer: when, which bytes, how it went")
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


def _referer(text: str) -> str:
    return f"Referer: {text}"


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
