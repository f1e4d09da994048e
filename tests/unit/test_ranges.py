"""What an answer to a request for a part of a file means."""

import pytest

from topicd.backends.ranges import Anew, Append, Complete, Judgement, Useless, Wanted, judge, strong_validator
from topicd.errors import RetryLater

FROM_10 = Wanted(10, '"a"', 100)
DATE = "Mon, 01 Jan 2024 10:00:00 GMT"
LATER = "Mon, 01 Jan 2024 10:00:01 GMT"
DATED = Wanted(10, DATE, 100)
REST = {"content-range": "bytes 10-99/100"}


def test_what_is_asked_for() -> None:
    assert "Range" not in Wanted().headers()
    assert Wanted(10).headers()["Range"] == "bytes=10-"
    assert "If-Range" not in Wanted(10).headers()
    assert FROM_10.headers()["If-Range"] == '"a"'
    assert FROM_10.headers()["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("wanted", "status", "headers", "meant"),
    [
        (Wanted(), 200, {"content-length": "5", "etag": '"b"'}, Anew(5, '"b"')),
        (Wanted(), 200, {}, Anew(None, "")),
        (Wanted(), 200, {"content-length": "5, 5"}, Anew(None, "")),
        (FROM_10, 200, {"content-length": "5", "etag": 'W/"b"'}, Anew(5, "")),
        (FROM_10, 206, {"content-range": "bytes 10-99/100"}, Append(90, 100)),
        (FROM_10, 206, {"content-range": "bytes 10-19/100", "content-length": "10"}, Append(10, 100)),
        (FROM_10, 206, {"content-range": "bytes 10-99/100", "etag": '"a"'}, Append(90, 100)),
        (FROM_10, 206, {**REST, "etag": 'W/"a"'}, Append(90, 100)),
        (FROM_10, 206, {**REST, "last-modified": LATER}, Append(90, 100)),
        (DATED, 206, {**REST, "last-modified": DATE}, Append(90, 100)),
        (Wanted(10), 206, {"content-range": "bytes 10-99/*"}, Append(90, None)),
        (Wanted(10, "", 10), 416, {"content-range": "bytes */10"}, Complete()),
        (Wanted(10), 416, {"content-range": "bytes */10"}, Complete()),
    ],
)
def test_is_meant(wanted: Wanted, status: int, headers: dict[str, str], meant: Judgement) -> None:
    assert judge(wanted, status, headers) == meant


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {}),
        (206, {"content-range": "bytes 9-99/100"}),
        (206, {"content-range": "bytes 11-99/100"}),
        (206, {"content-range": "bytes 10-99/101"}),
        (206, {"content-range": "bytes 10-99/*"}),
        (206, {"content-range": "bytes 10-100/100"}),
        (206, {"content-range": "bytes 10-9/100"}),
        (206, {"content-range": "bytes 10-99/100", "content-length": "91"}),
        (206, {"content-range": "bytes 10-99/100", "etag": '"b"'}),
        (206, {"content-range": "items 10-99/100"}),
        (206, {"content-range": "bytes \u0661\u0660-99/100"}),
        (200, {"content-range": "bytes 10-99/100"}),
        (416, {}),
        (416, {"content-range": "bytes */9"}),
        (416, {"content-range": "bytes */10"}),  # which is not the recorded length
    ],
)
def test_is_of_no_use(status: int, headers: dict[str, str]) -> None:
    assert isinstance(judge(FROM_10, status, headers), Useless)


@pytest.mark.parametrize(
    ("wanted", "headers"),
    [(FROM_10, {"etag": 'W/"b"'}), (FROM_10, {"etag": '"a", "b"'}), (DATED, {"last-modified": LATER})],
)
def test_a_server_that_ignores_if_range_is_found_out(wanted: Wanted, headers: dict[str, str]) -> None:
    assert isinstance(judge(wanted, 206, {**REST, **headers}), Useless)


@pytest.mark.parametrize(
    ("wanted", "status", "headers"),
    [
        (Wanted(), 206, {"content-range": "bytes 0-99/100"}),
        (Wanted(), 416, {}),
        (Wanted(), 200, {"content-range": "bytes 0-99/100"}),
        (Wanted(), 200, {"content-encoding": "gzip"}),
        (FROM_10, 206, {"content-range": "bytes 10-99/100", "content-encoding": "br"}),
        (FROM_10, 206, {"content-type": "multipart/byteranges; boundary=a"}),
    ],
)
def test_is_an_error(wanted: Wanted, status: int, headers: dict[str, str]) -> None:
    with pytest.raises(RetryLater):
        judge(wanted, status, headers)


@pytest.mark.parametrize(
    ("headers", "strong"),
    [
        ({"etag": '"a"'}, '"a"'),
        ({"etag": 'W/"a"'}, ""),
        ({"etag": "a"}, ""),
        ({"etag": '"a b"'}, ""),
        ({"etag": 'W/"a"', "last-modified": DATE, "date": "Mon, 01 Jan 2024 11:00:00 GMT"}, ""),
        ({"last-modified": DATE, "date": "Mon, 01 Jan 2024 10:01:00 GMT"}, DATE),
        ({"last-modified": DATE, "date": "Mon, 01 Jan 2024 10:00:59 GMT"}, ""),
        ({"last-modified": DATE}, ""),
        ({"last-modified": "yesterday", "date": DATE}, ""),
        ({}, ""),
    ],
)
def test_a_strong_validator(headers: dict[str, str], strong: str) -> None:
    assert strong_validator(headers) == strong
