"""URLs and errors as shown: enough to tell them apart, and no secrets."""

import pytest

from rangefetch.checks import check_url
from rangefetch.errors import DownloadError
from rangefetch.masking import mask_text, mask_url, without_userinfo
from rangefetch.options import DownloadOptions

SECRET = "s3cret"


@pytest.mark.parametrize(
    "name",
    [
        *("sig", "Signature", "signature", "token", "access_token", "X-Amz-Signature", "X-Amz-Credential"),
        *("X-Amz-Security-Token", "X-Amz-Date", "X-Goog-Signature", "key", "api_key", "apikey", "Policy"),
        *("Key-Pair-Id", "password", "client_secret", "AWSAccessKeyId", "auth", "jwt", "session", "sv_token"),
        *("auth_key", "authkey", "passkey", "rlkey", "Ocp-Apim-Subscription-Key", "tempauth", "wsSecret", "lsig"),
        *("PHPSESSID", "jsessionid", "session_id", "x-authorization", "passphrase", "hdntl", "hm", "GoogleAccessId"),
    ],
)
def test_the_values_of_parameters_that_carry_secrets_are_masked(name: str) -> None:
    assert mask_url(f"https://h/x?id=7&{name}={SECRET}&n=1#top") == f"https://h/x?id=7&{name}=***&n=1#top"
    assert SECRET not in mask_url(f"https://h/x#{name}={SECRET}")
    assert SECRET not in mask_url(f"https://h/x?to=https%3A%2F%2Fg%2Fy%3F{name}%3D{SECRET}%26id%3D7")
    assert SECRET not in mask_text(f"refused a redirect to https://h/?{name}={SECRET}: no")


@pytest.mark.parametrize(
    "url",
    [
        "https://h/x?id=7",
        "https://h/x?id=7&page=2&size=9&v=1.2&code=404",
        "https://h/keys/token=1/x",
        "https://h/x?keyword=a&author=b&design=c&passage=d&hash=e&sort=f",
        "https://h/x?to=https%3A%2F%2Fg%2Fy%3Fid%3D7",
        "https://h/a@b?x=y@z",
        "http://[::1]:80/x?q=a%20b",
        "magnet:?xt=urn:btih:0123",
    ],
)
def test_everything_else_stays(url: str) -> None:
    assert mask_url(url) == url


@pytest.mark.parametrize("userinfo", ["me", "me:s3cret", "s3cret:", ":s3cret", "a@b:s3cret"])
def test_users_and_passwords_are_masked(userinfo: str) -> None:
    assert mask_url(f"https://{userinfo}@h/x") == without_userinfo(f"https://{userinfo}@h/x") == "https://***@h/x"


def test_so_they_are_where_the_scheme_is_missing() -> None:
    for url in ("me:s3cret@h/x", "s3cret@h/x", "//me:s3cret@h/x"):
        with pytest.raises(ValueError, match="no URL scheme") as caught:
            check_url(url)
        assert SECRET not in str(caught.value)
    with pytest.raises(ValueError, match="scheme 'gopher' is not supported"):
        check_url("GOPHER://me:s3cret@h/x")


@pytest.mark.parametrize("line", ["Bearer s3cret", "s3cret", "Authorization Bearer s3cret: x"])
def test_a_header_that_is_none_is_not_shown(line: str) -> None:
    with pytest.raises(ValueError, match="colon") as caught:
        DownloadOptions(headers=[line])
    assert SECRET not in str(caught.value)


def test_the_exact_url_is_without_userinfo_alone() -> None:
    assert without_userinfo(f"https://me@h/x?sig={SECRET}") == f"https://***@h/x?sig={SECRET}"


@pytest.mark.parametrize("words", ["a\nb", "a\rb", "\x1b[2Jx", "x\x00", "\x9b1m", "a\u202eb"])
def test_no_control_character_is_in_an_error(words: str) -> None:
    error = DownloadError(words, url=f"http://h/{words}")
    assert str(error).isprintable()
    assert len(str(error).splitlines()) == 1
