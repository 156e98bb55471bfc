"""Browsers' tables of Content-Disposition: we take the same name as the browser, or a table here gives the reason.

Names are compared as they would be saved (``safe_filename``): which characters a name may have is our own decision.
"""

import re

import pytest

from rangefetch.disk.names import filename_from_content_disposition, safe_filename
from third_party.dispositions import TABLES
from third_party.obtaining import debian_source

# Why we take another name: the reason, a pattern for such fields, and the browsers whose tables have them. The first
# row that matches counts.
DIFFERENT = (
    (
        "a name in several parameters (RFC 2231), which HTTP does not have (RFC 8187, section 1)",
        r"filename\*\d",
        "Firefox Konqueror",
    ),
    ("words encoded as in e-mail (RFC 2047) stand for themselves", r"=\?", "Chromium Firefox Konqueror"),
    ("%XX in filename= stands for itself (RFC 6266, appendix D)", r'filename="?[^*"]*%', "Chromium"),
    (
        "filename* is UTF-8 or ISO-8859-1 and says so (RFC 8187, section 3.2), else it is passed over",
        r"filename\*=(?!\"?(?:UTF-8|ISO-8859-1)'[^']*')",
        "Chromium Firefox Konqueror",
    ),
    ("a value of filename* in quotes is taken, as from Firefox and Safari", r'filename\*="UTF-8', "Chromium Konqueror"),
    ("octets beyond ASCII in filename* are UTF-8 if they can be", r"filename\*=.*[\x80-\xff]", "Chromium"),
    ("octets beyond ASCII in filename= are UTF-8 if they can be", r"[\x80-\xff]", "Konqueror"),
    ("characters that are not to be seen are left out", r"[\0-\x1f]", "Chromium Firefox Konqueror"),
    ("what follows the closing quote is left out", r'"foo\.html"\.txt', "Chromium Konqueror"),
    ("a quote within a token is a character, and a semicolon ends it", r'=foo"bar;baz"qux', "Chromium Konqueror"),
    ("a quote that never ends holds the rest, but for a last backslash", r'="[^"]*$', "Firefox Konqueror"),
    ("of two names the first counts", r'filename="?foo[^;]*; filename="?bar', "Konqueror"),
    ("a token may hold what should be quoted", r"filename=foo[ \[]", "Konqueror"),
    (
        "whatever stands before the first semicolon, or in its place, matters not",
        r"^(?!attachment;|inline;)|^(?:attachment; inline|inline; attachment);",
        "Chromium Konqueror",
    ),
)


@pytest.mark.parametrize("browser", TABLES)
def test_we_take_the_name_that_the_browser_takes_or_have_a_reason(browser: str) -> None:
    package, file, read = TABLES[browser]
    [source] = debian_source(package, file).glob(file.removeprefix("*/"))
    rows = list(read(source))
    reasons: dict[str, int] = {}
    unexplained = []
    for field, theirs in rows:
        ours = filename_from_content_disposition(field)
        if ours == safe_filename(theirs):
            continue
        reason = next((why for why, pattern, _ in DIFFERENT if re.search(pattern, field, re.I)), None)
        if reason is None:
            unexplained.append((field, theirs, ours))
        else:
            reasons[reason] = reasons.get(reason, 0) + 1
    print(f"{len(rows)} fields: {len(rows) - sum(reasons.values()) - len(unexplained)} the same name; {reasons}")
    assert len(rows) > 80, "its table is read as a whole"
    assert unexplained == []
    assert set(reasons) == {why for why, _, browsers in DIFFERENT if browser in browsers.split()}
