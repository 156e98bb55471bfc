"""Defines the command-line options for argparse: their names, values and help texts.

Options about fetching have the names of the fields of :class:`DownloadOptions` as their ``dest``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from rangefetch import records
from rangefetch.cli.display import Quiet, printable
from rangefetch.masking import mask_text
from rangefetch.options import DownloadOptions

__all__ = ["USAGE_ERROR", "Parser", "Switch", "make_parser", "masked", "names_of", "opposite"]

USAGE_ERROR = 2

_FIELDS = {field.name: field.default for field in records.fields(DownloadOptions)}


def masked(text: str) -> str:
    """The text with secrets in URLs masked, including malformed URLs."""
    return mask_text(text)


class Parser(argparse.ArgumentParser):
    """An argument parser whose ``error`` prints one line, without the usage that argparse prints before it."""

    place = ""
    """Where the words being parsed come from, if not from the command line: ``FILE: KEY``."""

    def error(self, message: str) -> NoReturn:
        message = printable(masked(message.removeprefix("argument ")))
        if self.place:
            message = f"{self.place}: {message}"
        elif message.startswith("-k/"):
            message += " (curl's -k is --insecure here)"
        self.exit(USAGE_ERROR, f"rangefetch: {message}\n")


class Switch(argparse.Action):
    """An option that is on or off: ``--name`` and ``--no-name``, and either with ``=true`` or ``=false``.

    It may be declared by its negative name. ``shown`` are the names it was declared with, which help and errors show.
    With ``inverse``, turning it on sets ``dest`` to False.
    """

    def __init__(
        self, option_strings: Sequence[str], dest: str, *, inverse: bool = False, help: str | None = None
    ) -> None:
        self.shown = tuple(option_strings)
        self.inverse = inverse
        long = [name for name in option_strings if name.startswith("--")]
        negative = [name if name.startswith("--no-") else opposite(name) for name in long]
        names = dict.fromkeys([*option_strings, *map(opposite, negative), *negative])
        super().__init__(list(names), dest, nargs=0, help=help)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        is_on = not (option_string or "").startswith("--no-")
        setattr(namespace, self.dest, is_on is not self.inverse)


class _Help(Switch):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if option_string != "--no-help":
            display = Quiet()  # print_help ignores errors in writing to stdout
            display.result(parser.format_help().rstrip("\n"))
            parser.exit(int(display.lost_results))


def opposite(name: str) -> str:
    """Convert ``--name`` to ``--no-name`` and vice versa."""
    return f"--{name[5:]}" if name.startswith("--no-") else f"--no-{name[2:]}"


def names_of(action: argparse.Action) -> Sequence[str]:
    """The names of an option that help and errors show."""
    return action.shown if isinstance(action, Switch) else action.option_strings


def _columns() -> int:
    """The width of the terminal, from COLUMNS or the terminal itself; otherwise 80."""
    try:
        return int(os.environ.get("COLUMNS", "")) or 80
    except ValueError:
        pass
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


class _Formatter(argparse.HelpFormatter):
    """Shows a switch by the names it was declared with. The epilog says once that each has an opposite.

    The width is passed in, because argparse makes a formatter for every option added and would ask ``shutil`` for the
    terminal's width each time.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"width": _columns() - 2, **kwargs})

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, Switch):
            return ", ".join(action.shown)
        return super()._format_action_invocation(action)


def make_parser() -> Parser:
    parser = Parser(
        prog="rangefetch",
        usage="%(prog)s [options] [-i FILE] [URL...]\n       %(prog)s run {show,failed,export} FILE",
        description="Download files over HTTP(S), each over several connections. Run the same command again to "
        "resume an interrupted download.",
        epilog="Sizes are bytes, or 4M, 1.5G and so on. Options without a value can also be turned off: "
        "--no-OPTION, or --OPTION=false. The long option names are also the keys of the configuration file. Exit "
        "status: 0 all files complete, 1 at least one failed, 2 wrong usage, 130 interrupted.",
        # An abbreviation that is unique now could become ambiguous, or mean another option, in a later version.
        allow_abbrev=False,
        add_help=False,
        formatter_class=_Formatter,
    )
    parser.add_argument("-h", "--help", dest=argparse.SUPPRESS, action=_Help, help="show this help and exit")
    parser.add_argument("urls", nargs="*", metavar="URL", help="what to download; each URL is a separate file")
    _add_sources(parser)
    _add_lists(parser)
    _add_places(parser)
    _add_connections(parser)
    _add_limits(parser)
    _add_requests(parser)
    _add_patience(parser)
    _add_backends(parser)
    _add_speech(parser)
    return parser


def _add_sources(parser: Parser) -> None:
    group = parser.add_argument_group("other sources")
    add = group.add_argument
    add(
        "-i",
        "--input-file",
        metavar="FILE",
        help="also fetch what FILE lists: a URL per line, or one of many formats (see the guide on manifests), "
        "compressed or not; - is stdin, and FILE may be a URL",
    )
    add(
        "--mirror",
        dest="mirrors",
        metavar="URL",
        action="append",
        help="another URL of the same file, used once samples of it have been compared; repeatable, for a single URL",
    )
    add(
        "--github-mirror",
        dest="github_mirrors",
        metavar="RULE",
        action="append",
        help="a mirror of GitHub: https://PREFIX/ is put before the URL, https://FROM/=https://TO/ replaces its "
        "start; repeatable",
    )
    add(
        "--use-github-mirror",
        action=Switch,
        help="also fetch GitHub's files from these mirrors",
    )


def _add_lists(parser: Parser) -> None:
    group = parser.add_argument_group("lists (-i)")
    add = group.add_argument
    add(
        "--input-format",
        metavar="FORMAT",
        help="the list's format: urls, aria2, csv, tsv, jsonl, json, parquet, checksums, metalink, bagit, pylock and "
        "more (default: detected from the content)",
    )
    add(
        "--base-url",
        metavar="URL",
        help="the base of relative URLs, and of names without a URL (default: the URL of the list, if it has one)",
    )
    for kind, what in (
        ("url", "the URLs"),
        ("name", "file names or relative paths"),
        ("checksum", "digests"),
        ("size", "sizes in bytes"),
        ("mirrors", "further URLs of each file"),
        ("headers", "request headers"),
    ):
        add(
            f"--{kind}-column",
            metavar="NAME",
            help=f"the column with {what} (default: recognised by name)",
        )
    add(
        "--name",
        dest="name_template",
        metavar="TEMPLATE",
        help="names for files that the list does not name: {host}/{path}, {index:08d}{suffix}, {sha256:.2}/{sha256}, "
        "{COLUMN}",
    )
    add(
        "--run",
        dest="ledger",
        metavar="FILE",
        help="record the outcome of each item in FILE; the same command resumes, and skips what is complete",
    )
    add(
        "--verify",
        action=Switch,
        help="with --run, read complete files again and compare them (default: only their sizes are checked)",
    )
    add(
        "--retry-failed",
        metavar="CLASS",
        action="append",
        help="with --run, which failures to try again: transient, all, none, an HTTP status, or an error such as "
        "ChecksumMismatch; repeatable (default: transient)",
    )
    add(
        "--into-tar",
        metavar="NAME",
        help="with --run, put files into tar files with names such as shard-{:05d}.tar, which WebDataset reads",
    )
    add("--tar-count", type=int, metavar="N", help="with --into-tar, at most N files in each (default: 10000)")
    add("--tar-size", metavar="SIZE", help="with --into-tar, at most SIZE bytes in each (default: 1G)")
    add("--tar-json", action=Switch, help="with --into-tar, a JSON object beside each file, with its row of the list")
    add("--strict", action=Switch, help="stop at the first line that cannot be used (default: report and skip it)")
    add(
        "--save-results",
        metavar="FILE",
        help="append a JSON line to FILE as each item ends, with the fields of --json",
    )


def _add_places(parser: Parser) -> None:
    group = parser.add_argument_group("output file and verification")
    add = group.add_argument
    add(
        "-d",
        "--dir",
        "--output-dir",
        dest="save_dir",
        metavar="DIR",
        help="directory to save into, created if missing (default: .)",
    )
    add(
        "-o",
        "--out",
        dest="filename",
        metavar="NAME",
        help="file name, for a single URL (default: from the server, or the URL)",
    )
    add(
        "--allow-overwrite",
        dest="overwrite",
        action=Switch,
        help="replace a different file that has the name",
    )
    add(
        "--wait-for-other",
        action=Switch,
        help="if another download has the file, or will have its name, wait and use its result (default: fail)",
    )
    add(
        "--no-clobber",
        dest="overwrite",
        action=Switch,
        help="the same as --allow-overwrite=false, the default",
    )
    add(
        "--auto-file-renaming",
        action=Switch,
        help="save as NAME.1.EXT, NAME.2.EXT and so on if a different file has the name (default: false: refuse)",
    )
    add(
        "-c",
        "--continue",
        action=Switch,
        help="resume interrupted downloads; always on, accepted for compatibility with aria2c",
    )
    add(
        "--decode",
        action=Switch,
        help="undo a Content-Encoding (gzip, deflate) that nobody asked for, unless the name ends in it "
        "(default: such a response is refused)",
    )
    add(
        "--decode-limit",
        metavar="SIZE",
        help=f"fail if the decoded file is larger (default: {_FIELDS['decode_limit']})",
    )
    add(
        "--file-allocation",
        metavar="HOW",
        help="falloc reserves the space, trunc sets the length, none does neither "
        f"(default: {_FIELDS['file_allocation']})",
    )
    add("--checksum", metavar="TYPE=HEX", help="sha-256=... (or md5, sha-1, sha-384, sha-512, blake2b)")
    add("--expected-size", metavar="SIZE", help="refuse a file of another size")
    add("--max-file-size", "--max-filesize", metavar="SIZE", help="refuse a larger file; 0: no limit (default: 0)")
    add(
        "--durable",
        action=Switch,
        help="sync the file to disk before it gets its final name",
    )


def _add_connections(parser: Parser) -> None:
    group = parser.add_argument_group("connections")
    add = group.add_argument
    add(
        "-x",
        "--max-connection-per-server",
        metavar="N",
        type=_whole_number,
        help=f"at most N connections to one server (default: {_FIELDS['max_connection_per_server']})",
    )
    add(
        "-s",
        "--split",
        metavar="N",
        type=_whole_number,
        help=f"at most N connections for one file (default: {_FIELDS['split']})",
    )
    add(
        "-k",
        "--min-split-size",
        metavar="SIZE",
        help=f"open another connection per SIZE remaining (default: {_FIELDS['min_split_size']})",
    )
    add(
        "-j",
        "--max-concurrent-downloads",
        metavar="N",
        type=_whole_number,
        help="at most N files at the same time (default: 16, and 128 small ones)",
    )


def _add_limits(parser: Parser) -> None:
    group = parser.add_argument_group("speed limits, in bytes per second")
    add = group.add_argument
    add(
        "--host-rate",
        metavar="RATE",
        help="limit of requests to one host, evenly spaced: 10/s, 30/m or 100/h; 0: no limit (default: 0)",
    )
    add("--robots", action=Switch, help="fetch only what robots.txt allows, as slowly as it asks (RFC 9309)")
    add("--max-download-limit", "--limit-rate", metavar="SIZE", help="limit for each file; 0: none (default: 0)")
    add("--max-overall-download-limit", metavar="SIZE", help="limit for all files together; 0: none (default: 0)")


def _add_requests(parser: Parser) -> None:
    group = parser.add_argument_group("requests")
    add = group.add_argument
    add(
        "-H",
        "--header",
        dest="headers",
        metavar="'NAME: VALUE'",
        action="append",
        help="extra request header; repeatable",
    )
    add("-U", "--user-agent", metavar="TEXT", help=f"User-Agent header (default: {_FIELDS['user_agent']})")
    add("--referer", dest="headers", metavar="URL", action="append", type=_referer, help="Referer header")
    add(
        "--netrc",
        action=Switch,
        help="take user name and password from ~/.netrc (default: false)",
    )
    add("--netrc-path", dest="netrc", metavar="FILE", help="take user name and password from FILE")
    add("--http-user", metavar="USER", help="user name for Basic or Digest authentication, as the server wants")
    add("--http-passwd", metavar="PASSWORD", help="the password for --http-user")
    add("--bearer-file", metavar="FILE", help="send the token in FILE as Authorization: Bearer")
    add(
        "--location-trusted",
        metavar="HOST",
        action="append",
        help="also send headers, cookies and credentials to HOST if a redirect leads there; repeatable",
    )
    add("--load-cookies", dest="cookies", metavar="FILE", help="send cookies from FILE (Netscape format)")
    add("--all-proxy", "--proxy", dest="proxy", metavar="URL", help="proxy to use (default: from the environment)")
    add("--no-proxy", metavar="HOSTS", help="hosts to contact without a proxy, separated by commas")
    add("--interface", dest="bind_address", metavar="NAME", help="network interface or local address to use")
    add("--ip-version", metavar="VERSION", help="4 or 6 (default: either)")
    add("--http-version", metavar="VERSION", help=f"1.1, 2 or 3 (default: {_FIELDS['http_version']})")
    add(
        "--ca-certificate",
        "--cacert",
        dest="ca_file",
        metavar="FILE",
        help="trusted certificates, PEM (default: from the environment, or the system's)",
    )
    add(
        "--proxy-cacert",
        dest="proxy_ca_file",
        metavar="FILE",
        help="trusted certificates for an https proxy, PEM (default: the same as for servers)",
    )
    add(
        "--certificate",
        "--cert",
        dest="certificate",
        metavar="FILE",
        help="your certificate, PEM, for servers that ask for one",
    )
    add(
        "--private-key",
        "--key",
        dest="private_key",
        metavar="FILE",
        help="its private key, PEM, without a passphrase (default: in the file of the certificate)",
    )
    add(
        "--check-certificate",
        dest="verify_tls",
        action=Switch,
        help="verify the server's certificate (default: true)",
    )
    add(
        "--insecure",
        dest="verify_tls",
        action=Switch,
        inverse=True,
        help="the same as --check-certificate=false",
    )
    add(
        "--allow-downgrade",
        action=Switch,
        help="follow redirects from https to http (default: false)",
    )
    add(
        "--private-addresses",
        metavar="HOW",
        help="connect to loopback and local networks: allow, named (not where redirects lead), refuse (default: allow)",
    )


def _add_patience(parser: Parser) -> None:
    group = parser.add_argument_group("timeouts and retries")
    add = group.add_argument
    add(
        "--connect-timeout",
        metavar="SECONDS",
        type=_seconds,
        help=f"give up on a connection attempt after SECONDS (default: {_FIELDS['connect_timeout']:g})",
    )
    add(
        "-t",
        "--timeout",
        dest="read_timeout",
        metavar="SECONDS",
        type=_seconds,
        help=f"give up on a connection that sends nothing for SECONDS (default: {_FIELDS['read_timeout']:g})",
    )
    add(
        "--total-timeout",
        "--max-time",
        metavar="SECONDS",
        type=_seconds,
        help="give up on a file not completed within SECONDS; 0: never (default: 0)",
    )
    add(
        "-m",
        "--max-tries",
        metavar="N",
        type=_whole_number,
        help=f"failures in a row without progress before a file fails; 0: no limit (default: {_FIELDS['max_tries']})",
    )
    add(
        "--retry",
        dest="max_tries",
        metavar="N",
        type=_one_more,
        help="the same, counted as curl does, without the first try: --retry 4 is --max-tries 5",
    )
    add(
        "--retry-wait",
        "--retry-delay",
        metavar="SECONDS",
        type=_seconds,
        help="upper bound of the delay before the first retry; it doubles with each "
        f"(default: {_FIELDS['retry_wait']:g})",
    )
    add(
        "--network-wait",
        metavar="SECONDS",
        type=_seconds,
        help="how long to wait for a lost network to come back; 0: no limit (default: 3600)",
    )


def _add_backends(parser: Parser) -> None:
    group = parser.add_argument_group("backend and configuration")
    add = group.add_argument
    add("--backend", choices=("auto", "native", "aria2"), help="auto: the first that can run (default: auto)")
    add("--prefer", choices=("native", "aria2"), help="which of the two auto tries first (default: native)")
    add(
        "--conf-path",
        metavar="FILE",
        help="configuration file (default: $XDG_CONFIG_HOME/rangefetch/config.toml, or in ~/.config)",
    )
    add("--no-conf", dest="conf", action=Switch, help="read no configuration file")


def _add_speech(parser: Parser) -> None:
    group = parser.add_argument_group("output")
    add = group.add_argument
    add("-q", "--quiet", action=Switch, help="print only errors on stderr")
    add(
        "--json",
        action=Switch,
        help="print one JSON object per file on stdout, including failed ones, instead of the path",
    )
    add(
        "--explain",
        action=Switch,
        help="say what downloads are waiting for, and what limited the speed of each file",
    )
    add("--trace", metavar="FILE", help="append a JSON line per transfer to FILE: when, which bytes, the outcome")
    add(
        "-v",
        "--version",
        action=Switch,
        help="show the version, and which libcurl is in use and where it was found",
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
