"""Bytes of two files, or of two versions of one, are never mixed, and no part of a file is taken for the whole."""

import os
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadResult
from rangefetch.errors import BadAnswer, ContentChanged, DownloadError, TargetExists
from servers.misbehaving import MisbehavingServer, content, http_date
from servers.nginx import Nginx
from servers.programs import require
from servers.routing import ROUTES, Ask, Route
from servers.tls import Certificates
from servers.wire import Break, Reply
from support.downloads import FIRST_RANGE, QUICK, fails, fetch, interrupt
from support.files import MIB, begun, names, saved_bytes
from support.waiting import until

SIZE = 25 * MIB + 165_831
VALIDATORS = {
    "weak etag": {"ETag": 'W/"same"', "Last-Modified": http_date(0)},
    "weak etag alone": {"ETag": 'W/"same"'},
    "empty etag": {"ETag": '""'},
    "date": {"Last-Modified": http_date(0)},
    "nothing": {},
}


def _as_200(ask: Ask, reply: Reply, *, says: bool = True) -> Reply:
    """A part of the file with the status of the whole."""
    if reply.status == 206:
        reply.status = 200
        if not says:
            del reply.headers["Content-Range"]
    return reply


def _claims(ask: Ask, reply: Reply, *, part: str = "") -> Reply:
    """A range request gets the whole file with status 200, and a Content-Range that says something else."""
    if "range" in ask.headers:
        reply = ask.good(ranges=False)
        reply.headers["Content-Range"] = part
    return reply


def _exactly(ask: Ask, reply: Reply, *, chunked: bool = False) -> Reply:
    """A range request gets as many bytes as it asked for, but from the start of the file, as a plain 200."""
    if reply.status != 206:
        return reply
    reply = ask.good(ranges=False)
    reply.body = reply.body[: len(ask.good().body)]
    if chunked:
        reply.framing = "chunked"
    return reply


def _short(ask: Ask, reply: Reply, *, of: int = 3 * MIB) -> Reply:
    """The start of the file, as if it were the whole."""
    reply = ask.good(ranges=False)
    reply.body = reply.body[:of]
    return reply


def _disguise(reply: Reply, validators: str) -> Reply:
    for name in ("ETag", "Last-Modified"):
        reply.headers.pop(name, None)
    reply.headers.update(VALIDATORS[validators])
    return reply


def _versions(ask: Ask, reply: Reply, *, turns: int = 1, validators: str = "nothing") -> Reply:
    """The first ``turns`` requests get one file, and later ones another, with the same validators."""
    reply = ask.good(seed=0 if ask.turn < turns else 1)
    return _disguise(reply, validators)


def _one_less(ask: Ask, reply: Reply, *, validators: str = "", how: str = "close") -> Reply:
    """Every body lacks its last byte, and ranges after the first one break off."""
    if validators:
        reply = _disguise(reply, validators)
    if "range" in ask.headers and ask.turn > 0:
        reply.broken = Break("close", 10 if how == "part" else 0, headers=how == "part")
        return reply
    reply.body = reply.body[:-1]
    return reply


def _nodes(ask: Ask, reply: Reply) -> Reply:
    """Two nodes answer in turns, each with its own ETag for the same bytes."""
    reply.headers["ETag"] = f'"node-{ask.turn % 2}"'
    return reply


def _two_fields(ask: Ask, reply: Reply, *, field: str = "ETag", turns: int = 1) -> Reply:
    """One file, and after ``turns`` requests another. A cache adds the same validator to both; the server's differ."""
    reply = ask.good(seed=0 if ask.turn < turns else 1)
    if field == "ETag":
        reply.extra.append(f"ETag: {reply.headers['ETag']}")
        reply.headers["ETag"] = '"of a cache"'
    else:
        del reply.headers["ETag"]
        reply.extra.append(f"Last-Modified: {reply.headers['Last-Modified']}")
        reply.headers["Last-Modified"] = http_date(0)
    return reply


def _long(ask: Ask, reply: Reply) -> Reply:
    reply.headers["ETag"] = '"' + "x" * 2000 + '"'
    return reply


@pytest.fixture(autouse=True)
def _routes(monkeypatch: pytest.MonkeyPatch) -> None:
    for fault in (_as_200, _claims, _exactly, _short, _versions, _one_less, _two_fields, _nodes, _long):
        name = fault.__name__.strip("_").replace("_", "-")
        monkeypatch.setitem(ROUTES, name, Route(name, fault, {}))


# ---- A part sent as 200 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [1, 8])
@pytest.mark.parametrize("skip", [0, 1, 2])
def test_a_part_that_is_sent_as_200_is_taken_for_the_206_it_is(
    server: MisbehavingServer, target: Path, split: int, skip: int
) -> None:
    url = server.url("/as-200/x", size=SIZE, skip=skip)
    fetch(url, target, split=split, min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert all(request.range for request in server.requests)


@pytest.mark.parametrize("split", [1, 8])
@pytest.mark.parametrize("skip", [0, 1, 3])
@pytest.mark.parametrize("chunked", [0, 1])
def test_exactly_what_was_asked_for_is_not_taken_for_the_whole(
    server: MisbehavingServer, target: Path, split: int, skip: int, chunked: int
) -> None:
    url = server.url("/exactly/x", size=SIZE, skip=skip, chunked=chunked)
    fetch(url, target, split=split, min_split_size="1M")
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("route", ["no-ranges", "chunked", "no-length"])
def test_a_file_as_long_as_the_first_request_is_confirmed_by_one_more(
    server: MisbehavingServer, target: Path, route: str
) -> None:
    fetch(server.url(f"/{route}/x", size=FIRST_RANGE), target)
    assert target.read_bytes() == content(FIRST_RANGE)
    assert [request.range for request in server.requests] == [(0, FIRST_RANGE), None]


@pytest.mark.parametrize(
    "part",
    [
        "bytes 0-4194303/*",
        "bytes 1-4194304/26380231",
        "bytes 0-4194304/26380231",
        f"bytes 0-{SIZE - 2}/{SIZE - 1}",
        f"bytes */{SIZE}",
        "bytes",
        "items 0-9/10",
    ],
)
def test_a_200_with_a_content_range_that_makes_no_sense_leads_to_a_plain_request(
    server: MisbehavingServer, target: Path, part: str
) -> None:
    fetch(server.url("/claims/x", size=SIZE, part=part), target)
    assert target.read_bytes() == content(SIZE)
    assert [request.range for request in server.requests] == [(0, FIRST_RANGE), None]


def test_a_200_whose_content_range_is_the_whole_file_is_the_whole_file(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/claims/x", size=SIZE, part=f"bytes 0-{SIZE - 1}/{SIZE}"), target)
    assert target.read_bytes() == content(SIZE)
    assert len(server.requests) == 1


def test_a_part_in_answer_to_a_plain_request_is_an_error(server: MisbehavingServer, target: Path) -> None:
    part = f"bytes 0-{3 * MIB - 1}/{SIZE}"
    url = server.url("/short/x", size=SIZE, header=f"Content-Range: {part}")
    fails(BadAnswer, url, target)
    assert not target.exists()


@pytest.mark.parametrize(("route", "parameters"), [("as-200", {}), ("exactly", {}), ("exactly", {"chunked": 1})])
@pytest.mark.parametrize("size", [3 * MIB + 1, FIRST_RANGE, SIZE])
def test_of_several_small_files(
    server: MisbehavingServer, tmp_path: Path, route: str, parameters: dict[str, int], size: int
) -> None:
    urls = [server.url(f"/{route}/file-{number}.bin", size=size, seed=number, **parameters) for number in range(3)]
    rangefetch.fetch_many(urls, tmp_path / "many", **QUICK)
    for number in range(3):
        assert (tmp_path / "many" / f"file-{number}.bin").read_bytes() == content(size, number)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("how", ["close", "part"])
@pytest.mark.parametrize("validators", ["", *VALIDATORS])
def test_what_was_said_of_a_small_file_is_not_forgotten_when_ranges_break(
    server: MisbehavingServer,
    tls_server: MisbehavingServer,
    certificates: Certificates,
    tmp_path: Path,
    validators: str,
    how: str,
    tls: bool,
) -> None:
    """The first response states the full size; the plain request made at the end brings less."""
    url = (tls_server if tls else server).url("/one-less/x.bin", size=200_000, validators=validators, how=how)
    [outcome] = rangefetch.fetch_many(
        [url], tmp_path / "many", on_error="return", ca_file=certificates.ca, max_tries=2, **QUICK
    )
    if how == "part" and isinstance(outcome, DownloadResult):
        # The missing byte was fetched by itself.
        assert outcome.path.read_bytes() == content(200_000)
        return
    assert isinstance(outcome, DownloadError), outcome
    assert not (tmp_path / "many" / "x.bin").exists()


def test_what_was_said_of_a_small_file_does_not_keep_a_newer_version_out(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    url = server.url("/script/x.bin", steps="cut:after=10:size=200000", then="no-ranges:size=100000:seed=1")
    [result] = rangefetch.fetch_many([url], tmp_path / "many", **QUICK)
    assert result.path.read_bytes() == content(100_000, 1)


@pytest.mark.parametrize(("route", "parameters"), [("as-200", {}), ("exactly", {}), ("exactly", {"chunked": 1})])
def test_in_a_stream(server: MisbehavingServer, route: str, parameters: dict[str, int]) -> None:
    with rangefetch.stream(server.url(f"/{route}/x", size=SIZE, **parameters), **QUICK) as file:
        assert file.read() == content(SIZE)


@pytest.mark.parametrize("then", ["as-200", "exactly", "exactly:chunked=1"])
def test_when_a_download_is_resumed(server: MisbehavingServer, target: Path, then: str) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=2M", then=then)
    interrupt(url, target, 1_500_000, split=1)
    fetch(url, target)
    assert target.read_bytes() == content(SIZE)


def test_a_body_shorter_than_the_size_that_is_expected_is_no_whole(server: MisbehavingServer, target: Path) -> None:
    fails(ContentChanged, server.url("/short/x", size=SIZE), target, expected_size=SIZE)
    assert names(target.parent) == []


@pytest.mark.parametrize("etag", ["strong", "none"])
@pytest.mark.parametrize("split", [1, 8])
def test_a_body_shorter_than_the_size_that_was_told_before_is_no_whole(
    server: MisbehavingServer, target: Path, etag: str, split: int
) -> None:
    fails(BadAnswer, server.url("/short/x", size=SIZE, skip=1, etag=etag, mtime=0), target, split=split)
    assert not target.exists()


# ---- Versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validators", VALIDATORS)
@pytest.mark.parametrize("split", [1, 8])
@pytest.mark.parametrize("turns", [1, 2, 5])
def test_a_version_that_nothing_tells_apart_is_found_by_its_bytes(
    server: MisbehavingServer, target: Path, validators: str, split: int, turns: int
) -> None:
    url = server.url("/versions/x", size=SIZE, turns=turns, validators=validators)
    result = fetch(url, target, split=split, min_split_size="1M")
    assert target.read_bytes() == content(SIZE, 1)
    assert result.identity == "compared"


@pytest.mark.parametrize("validators", ["weak etag", "date", "nothing"])
@pytest.mark.parametrize("turns", range(1, 9))
def test_at_whichever_request_of_a_resume_it_changes_no_old_byte_stays(
    server: MisbehavingServer, target: Path, validators: str, turns: int
) -> None:
    url = server.url("/versions/x", size=SIZE, turns=turns, validators=validators, rate="8M")
    interrupt(url, target, 6 * MIB, split=1)
    fetch(url, target, min_split_size="1M")
    assert target.read_bytes() == content(SIZE, 1)


@pytest.mark.parametrize("route", ["as-200", "versions"])
def test_over_https_and_with_one_lane(tls_server: MisbehavingServer, target: Path, route: str) -> None:
    fetch(tls_server.url(f"/{route}/x", size=SIZE), target, verify_tls=False, split=1)
    assert target.read_bytes() == content(SIZE, 1 if route == "versions" else 0)


@pytest.mark.parametrize("split", [1, 8])
def test_nodes_with_validators_of_their_own_give_it_as_one_response(
    server: MisbehavingServer, target: Path, split: int
) -> None:
    result = fetch(server.url("/nodes/x", size=SIZE), target, split=split, min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert [request.range for request in server.requests].count(None) == 1
    assert result.identity == "one response"
    assert len(server.requests) < 30


@pytest.mark.parametrize("field", ["ETag", "Last-Modified"])
@pytest.mark.parametrize("split", [1, 8])
@pytest.mark.parametrize("turns", [1, 3, 1000])
def test_two_validators_that_differ_prove_nothing(
    server: MisbehavingServer, target: Path, field: str, split: int, turns: int
) -> None:
    url = server.url("/two-fields/x", size=SIZE, field=field, turns=turns)
    result = fetch(url, target, split=split, min_split_size="1M")
    assert target.read_bytes() == content(SIZE, 0 if turns == 1000 else 1)
    assert result.identity in ("compared", "one response")


@pytest.mark.parametrize("field", ["ETag", "Last-Modified"])
def test_nor_in_a_stream(server: MisbehavingServer, field: str) -> None:
    with rangefetch.stream(server.url("/two-fields/x", size=SIZE, field=field), **QUICK) as file:
        assert file.read() == content(SIZE, 1)


def test_a_validator_too_long_to_be_kept_leads_to_one_response(server: MisbehavingServer, target: Path) -> None:
    result = fetch(server.url("/long/x", size=SIZE), target)
    assert target.read_bytes() == content(SIZE)
    assert [request.range for request in server.requests] == [(0, FIRST_RANGE), None]
    assert result.identity == "one response"


def test_the_result_says_how_it_is_known_to_be_the_file(server: MisbehavingServer, target: Path) -> None:
    def identity(route: str = "good", size: int = SIZE, **parameters: Any) -> str:
        options = {"overwrite": True, "min_split_size": "1M"}
        return fetch(server.url(f"/{route}/x", size=size, **parameters), target, **options).identity

    assert identity() == "etag"
    assert identity(etag="weak") == identity(etag="none") == identity(etag="none", mtime=0) == "compared"
    assert identity("no-ranges", etag="none") == "one response"
    assert identity(size=MIB) == "one response"
    assert identity(size=0) == "one response"
    url = server.url("/good/x", size=MIB)
    [result] = rangefetch.fetch_many([url], target.parent / "many", **QUICK)
    assert result.identity == "one response"
    assert result.to_dict()["identity"] == "one response"


@pytest.mark.parametrize("split", [1, 8])
def test_a_file_that_is_replaced_is_not_mixed_over_http_2(certificates: Certificates, target: Path, split: int) -> None:
    require(Nginx.available(), "nginx", "RANGEFETCH_REQUIRE_NGINX")
    with Nginx(certificates=certificates, limit_rate="6m") as nginx, DownloadManager() as manager:
        file = nginx.write("/replaced.bin", content(SIZE))
        options = {"save_dir": target.parent, "filename": target.name, "split": split, "http_version": "2"}
        gid = manager.download(nginx.http2_url("/replaced.bin"), QUICK | options | {"ca_file": certificates.ca})
        until(lambda: manager.get_download_progress(gid).downloaded > 5 * MIB)
        new = file.with_name("new.bin")
        new.write_bytes(content(SIZE, 1))
        os.utime(new, (0, 0))
        new.replace(file)
        assert manager.wait(gid, timeout=30).identity == "etag"
        assert {line.protocol for line in nginx.log(at_least=2)} == {"HTTP/2.0"}
    # On a busy machine, all of the old version may have arrived before there is a new one.
    assert target.read_bytes() in (content(SIZE), content(SIZE, 1))


@pytest.mark.parametrize("validators", VALIDATORS)
def test_a_stream_without_a_strong_etag_is_one_response(server: MisbehavingServer, validators: str) -> None:
    url = server.url("/versions/x", size=SIZE, turns=1, validators=validators)
    with rangefetch.stream(url, split=8, **QUICK) as file:
        assert file.read() == content(SIZE, 1)
    assert [request.range for request in server.requests].count(None) == 1


# ---- Mirrors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [1, 8])
@pytest.mark.parametrize(("more", "seed"), [(MIB, 1), (-MIB, 1), (0, 1), (-SIZE, 0)])
def test_a_mirror_that_answers_first_does_not_decide(
    server: MisbehavingServer,
    other_server: MisbehavingServer,
    target: Path,
    split: int,
    more: int,
    seed: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Retry-After makes the URL rest for so long that a mirror stands in for it.
    url = server.url("/status/x", code=503, size=SIZE, times=1, header="Retry-After: 2")
    mirror = other_server.url("/good/x", size=SIZE + more, seed=seed)
    result = fetch(url, target, mirrors=[mirror], split=split, min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert result.identity in ("etag", "compared")
    assert any(mirror in record.getMessage() for record in caplog.records if record.levelname == "WARNING")


def test_a_url_that_answers_at_last_confirms_what_mirrors_sent(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/status/x", code=503, size=SIZE, times=1, header="Retry-After: 2")
    mirror = other_server.url("/good/x", size=SIZE)
    result = fetch(url, target, mirrors=[mirror])
    assert target.read_bytes() == content(SIZE)
    assert result.identity in ("etag", "compared")


@pytest.mark.parametrize("code", [404, 503])
def test_a_file_from_mirrors_alone_says_so(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, code: int
) -> None:
    url, mirror = server.url("/status/x", code=code), other_server.url("/good/x", size=SIZE)
    result = fetch(url, target, mirrors=[mirror])
    assert target.read_bytes() == content(SIZE)
    assert result.identity == "mirrors"
    assert result.sources == (mirror,)


def test_what_the_url_sent_is_never_thrown_away_for_a_mirror(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=2M|status:code=503", then="good")
    mirror = other_server.url("/good/x", size=SIZE + MIB, seed=1)
    kept = interrupt(url, target, 1_500_000, split=1)
    result = fetch(url, target, mirrors=[mirror])
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept
    assert result.sources == (url,)


def test_a_mirror_that_changes_midway_leaves_no_byte(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/good/x", size=SIZE, rate="4M")
    for turns in (3, 4, 5):
        mirror = other_server.url("/versions/x", size=SIZE, turns=turns, validators="weak etag", rate="8M")
        fetch(url, target, mirrors=[mirror], min_split_size="1M", max_connection_per_server=2, overwrite=True)
        assert target.read_bytes() == content(SIZE)


def test_a_mirror_does_not_say_what_the_file_is_called(
    server: MisbehavingServer, other_server: MisbehavingServer, tmp_path: Path
) -> None:
    url = server.url("/status/own-name.bin", code=404)
    mirror = other_server.url("/good/x", size=MIB, header='Content-Disposition: attachment; filename="mirrors.bin"')
    result = fetch(url, f"{tmp_path}/", mirrors=[mirror])
    assert result.filename == "own-name.bin"


def test_a_mirror_does_not_say_that_the_file_is_there(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirror = other_server.url("/good/x", size=MIB)
    fetch(mirror, target)
    url = server.url("/status/x", code=503, size=2 * MIB, times=1)
    with pytest.raises(TargetExists):
        fetch(url, target, mirrors=[mirror])
    assert other_server.requests[1:] == []


def test_a_rewritten_url_does_not_decide_either(server: MisbehavingServer, target: Path) -> None:
    base = f"http://127.0.0.1:{server.port}"
    url = server.url("/status/x", code=503, size=SIZE, times=1).replace(base, "http://github.com")
    rule = f"{url}=http://mirror.example/good/x?size={SIZE + 1}&seed=1&id="
    fetch(url, target, proxy=base, use_github_mirror=True, github_mirrors=[rule])
    assert target.read_bytes() == content(SIZE)


def test_a_download_that_is_stopped_while_the_url_is_asked_keeps_what_came(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/status/x", code=503, size=SIZE, times=1, header="Retry-After: 10")
    mirror = other_server.url("/good/x", size=SIZE)
    options = QUICK | {"save_dir": target.parent, "filename": target.name, "mirrors": [mirror]}
    with DownloadManager() as manager:
        gid = manager.download(url, options)
        until(lambda: manager.get_download_progress(gid).downloaded == SIZE)
        manager.pause(gid)
        assert names(target.parent) == begun(target)
        assert saved_bytes(target) == SIZE
    # The rest that the server asked for applies to this download, too.
    result = fetch(url, target, mirrors=[mirror], total_timeout=60.0)
    assert (result.resumed, result.identity) == (SIZE, "compared")
    assert target.read_bytes() == content(SIZE)
