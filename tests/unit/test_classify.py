"""Every kind of response and exception has one meaning."""

import errno
import json
import socket
import ssl
import subprocess
import sys

import httpx
import pytest

from topicd.backends.classify import AnswerCutError, AnswerTooLargeError, excerpt
from topicd.backends.client import classify
from topicd.errors import Rejected, RetryLater, TopicdError, Unavailable, Unusable

DATE = "Sun, 22 Nov 2026 10:00:00 GMT"
IN_90_S = "Sun, 22 Nov 2026 10:01:30 GMT"
IN_90_S_OF_RFC_850 = "Sunday, 22-Nov-26 10:01:30 GMT"


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


RESPONSES: list[tuple[int, dict[str, str], type[TopicdError], str, float | None]] = [
    (301, {}, Unusable, "redirected", None),
    (307, {}, Unusable, "redirected", None),
    (400, {}, Rejected, "bad_request", None),
    (401, {}, Unusable, "unauthorized", None),
    (402, {}, Unusable, "refused", None),
    (403, {}, Unusable, "forbidden", None),
    (404, {}, Unusable, "not_found", None),
    (405, {}, Unusable, "method_not_allowed", None),
    (407, {}, Unusable, "proxy_unauthorized", None),
    (408, {}, RetryLater, "request_timeout", None),
    (408, {"Retry-After": "2"}, RetryLater, "request_timeout", 2.0),
    (413, {}, Rejected, "request_too_large", None),
    (413, {"Retry-After": "5"}, Rejected, "request_too_large", None),
    (414, {}, Rejected, "request_too_large", None),
    (418, {}, Unusable, "refused", None),
    (422, {}, Rejected, "bad_request", None),
    (425, {}, RetryLater, "too_early", None),
    (425, {"Retry-After": "1"}, RetryLater, "too_early", 1.0),
    (429, {}, RetryLater, "rate_limited", None),
    (429, {"Retry-After": "soon"}, RetryLater, "rate_limited", None),
    (429, {"Retry-After": ""}, RetryLater, "rate_limited", None),
    (429, {"Retry-After": "-7"}, RetryLater, "rate_limited", None),
    (429, {"Retry-After": "7.5"}, RetryLater, "rate_limited", None),
    (429, {"Retry-After": "0"}, Unavailable, "rate_limited", 0.0),
    (429, {"Retry-After": "7"}, Unavailable, "rate_limited", 7.0),
    (429, {"Retry-After": " 7 "}, Unavailable, "rate_limited", 7.0),
    (429, {"Retry-After": IN_90_S, "Date": DATE}, Unavailable, "rate_limited", 90.0),
    (429, {"Retry-After": DATE, "Date": IN_90_S}, Unavailable, "rate_limited", 0.0),
    (429, {"Retry-After": "9" * 400}, Unavailable, "rate_limited", 3600.0),
    (500, {}, RetryLater, "server_error", None),
    (500, {"Retry-After": "3"}, RetryLater, "server_error", 3.0),
    (501, {}, RetryLater, "server_error", None),
    (502, {}, Unavailable, "bad_gateway", None),
    (502, {"Retry-After": "6"}, Unavailable, "bad_gateway", 6.0),
    (503, {}, Unavailable, "busy", None),
    (503, {"Retry-After": "11"}, Unavailable, "busy", 11.0),
    (503, {"Retry-After": IN_90_S, "Date": DATE}, Unavailable, "busy", 90.0),
    (503, {"Retry-After": IN_90_S_OF_RFC_850, "Date": DATE}, Unavailable, "busy", 90.0),
    (503, {"Retry-After": "Mon, 01 Jan 2001 00:00:00 -0000", "Date": DATE}, Unavailable, "busy", 0.0),
    (504, {}, RetryLater, "gateway_timeout", None),
    (504, {"Retry-After": "4"}, RetryLater, "gateway_timeout", 4.0),
    (507, {}, RetryLater, "server_error", None),
    (599, {}, RetryLater, "server_error", None),
    (204, {}, RetryLater, "bad_answer", None),
]

EXCEPTIONS: list[tuple[Exception, type[TopicdError], str]] = [
    # no name, no connection
    (caused_by(httpx.ConnectError(""), socket.gaierror(socket.EAI_NONAME, "x")), Unavailable, "dns_failed"),
    (caused_by(httpx.ConnectError(""), socket.gaierror(socket.EAI_AGAIN, "x")), Unavailable, "dns_failed"),
    (socket.gaierror(socket.EAI_FAIL, "x"), Unavailable, "dns_failed"),
    (caused_by(httpx.ConnectError(""), ConnectionRefusedError()), Unavailable, "connect_refused"),
    (
        caused_by(httpx.ConnectError(""), ExceptionGroup("all", [ConnectionRefusedError(), OSError()])),
        Unavailable,
        "connect_refused",
    ),
    (caused_by(httpx.ConnectError(""), OSError(errno.ENETUNREACH, "x")), Unavailable, "connect_failed"),
    (caused_by(httpx.ConnectError(""), ConnectionResetError()), Unavailable, "connect_failed"),
    (httpx.ProxyError(""), Unavailable, "connect_failed"),
    (OSError(errno.EMFILE, "x"), Unavailable, "connect_failed"),
    # a connection that breaks before there is an answer
    (httpx.ReadError(""), Unavailable, "connection_reset"),
    (caused_by(httpx.ReadError(""), ConnectionResetError()), Unavailable, "connection_reset"),
    (caused_by(httpx.WriteError(""), BrokenPipeError()), Unavailable, "connection_reset"),
    (httpx.CloseError(""), Unavailable, "connection_reset"),
    (httpx.RemoteProtocolError(""), Unavailable, "connection_reset"),
    # TLS
    (caused_by(httpx.ConnectError(""), ssl.SSLCertVerificationError()), Unusable, "tls_untrusted"),
    (caused_by(httpx.ConnectError(""), ssl.SSLError()), Unavailable, "tls_failed"),
    (caused_by(httpx.ConnectError(""), ssl.SSLEOFError()), Unavailable, "tls_failed"),
    (ssl.SSLZeroReturnError(), Unavailable, "tls_failed"),
    # time: to connect, for a read or a write, in all
    (caused_by(httpx.ConnectTimeout(""), TimeoutError()), Unavailable, "connect_timeout"),
    (httpx.PoolTimeout(""), Unavailable, "connect_timeout"),
    (caused_by(httpx.ReadTimeout(""), TimeoutError()), RetryLater, "read_timeout"),
    (httpx.WriteTimeout(""), RetryLater, "read_timeout"),
    (TimeoutError(), RetryLater, "total_timeout"),
    (caused_by(TimeoutError(), OSError(errno.EMFILE, "x")), RetryLater, "total_timeout"),
    # a body that is cut, or too large
    (AnswerCutError(), RetryLater, "answer_cut"),
    (caused_by(AnswerCutError(), httpx.ReadError("")), RetryLater, "answer_cut"),
    (caused_by(AnswerCutError(), httpx.RemoteProtocolError("")), RetryLater, "answer_cut"),
    (caused_by(AnswerCutError(), caused_by(httpx.ReadError(""), ssl.SSLError())), RetryLater, "answer_cut"),
    (AnswerTooLargeError(), Rejected, "answer_too_large"),
    # one that cannot be read: no JSON, no UTF-8, of the wrong type, too deep
    (httpx.DecodingError(""), RetryLater, "bad_answer"),
    (json.JSONDecodeError("", "", 0), RetryLater, "bad_answer"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, ""), RetryLater, "bad_answer"),
    (ValueError(), RetryLater, "bad_answer"),
    (RecursionError(), RetryLater, "bad_answer"),
    # an address of ours that cannot be used
    (httpx.UnsupportedProtocol(""), Unusable, "bad_url"),
    (httpx.InvalidURL(""), Unusable, "bad_url"),
    (httpx.LocalProtocolError(""), Unusable, "bad_url"),
    # and whatever nobody thought of
    (httpx.TooManyRedirects(""), RetryLater, "request_failed"),
    (RuntimeError("odd"), RetryLater, "request_failed"),
]


@pytest.mark.parametrize(("status", "headers", "kind", "cause", "after_s"), RESPONSES)
def test_response(
    status: int, headers: dict[str, str], kind: type[TopicdError], cause: str, after_s: float | None
) -> None:
    error = classify(httpx.Response(status, headers=headers), server="gpu:1")
    assert (type(error), error.cause) == (kind, cause)
    assert getattr(error, "after_s", None) == after_s
    assert error.message == f"gpu:1 answers HTTP {status}."


@pytest.mark.parametrize(("trouble", "kind", "cause"), EXCEPTIONS, ids=lambda value: getattr(value, "__name__", None))
def test_exception(trouble: Exception, kind: type[TopicdError], cause: str) -> None:
    error = classify(trouble, server="gpu:1")
    assert (type(error), error.cause) == (kind, cause)
    assert "gpu:1" in error.message
    assert error.hint or not isinstance(error, Unavailable | Unusable), "what is waited for tells what to do about it"


def test_untrusted_certificate_names_the_setting() -> None:
    assert "SSL_CA_FILE" in classify(ssl.SSLCertVerificationError()).hint


def test_date_without_server_clock_is_taken_against_ours() -> None:
    response = httpx.Response(503, headers={"Retry-After": "Fri, 31 Dec 2100 00:00:00 GMT"})
    assert getattr(classify(response), "after_s", None) == 3600.0


def test_date_in_the_oldest_form() -> None:
    response = httpx.Response(503, headers={"Retry-After": "Sun Nov 22 10:01:30 2026", "Date": DATE})
    assert getattr(classify(response), "after_s", None) == 90.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": "model 'x' not found"}, "model 'x' not found"),
        ({"error": {"message": "no such voice", "type": "invalid"}}, "no such voice"),
        ({"detail": [{"loc": ["body", "steps"], "msg": "too many"}]}, "too many"),
        ({"error": "OutOfMemoryError", "detail": "", "errors": "CUDA"}, "OutOfMemoryError CUDA"),
        ({"error": "a", "detail": "a"}, "a"),
        ({"error": "line\none\x1b[31m"}, "line one [31m"),
    ],
)
def test_words_of_the_server_are_shown(body: object, words: str) -> None:
    assert classify(httpx.Response(500, json=body)).message == f"the server answers HTTP 500: {words}"


@pytest.mark.parametrize("body", [b"<html><h1>500</h1>", b"[" * 100_000, b"\xff\xfe", b'"text"'])
def test_words_that_are_not_understood_are_left_out(body: bytes) -> None:
    response = httpx.Response(500, content=body, headers={"content-type": "text/html"})
    assert classify(response).message == "the server answers HTTP 500."


@pytest.mark.parametrize("status", [401, 403, 407])
def test_words_about_passwords_are_left_out(status: int) -> None:
    response = httpx.Response(status, json={"error": "wrong password hunter2"})
    assert "hunter2" not in classify(response).message


@pytest.mark.parametrize(
    "text",
    [
        "cannot reach http://me:hunter2@host/x",
        "bad header Authorization: Bearer hunter2",
        "bad header Basic hunter2==",
        "bad key sk-hunter2hunter2",
    ],
)
def test_secrets_are_cut_out_of_excerpts(text: str) -> None:
    assert "hunter2" not in excerpt(text)


def test_excerpt_is_short() -> None:
    assert len(excerpt("word " * 10_000)) <= 200


def test_importing_the_client_does_not_load_httpx() -> None:
    code = "import sys, topicd.backends.client; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


PROMPT = "Write of the tides: the Moon pulls on the sea, twice a day."


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (f"bad prompt: {PROMPT}", "bad prompt:…"),
        (f"in {PROMPT[5:40]}, nothing", "in…, nothing"),
        ("the Moon pulls on it", "the Moon pulls on it"),
        ("no model llama3.2:3b-instruct-q4_K_M", "no model llama3.2:3b-instruct-q4_K_M"),
        ("", ""),
    ],
)
def test_what_repeats_the_request_is_left_out(words: str, shown: str) -> None:
    sent = {"model": "llama3.2:3b-instruct-q4_K_M", "messages": [{"role": "user", "content": f"{PROMPT}\n"}]}
    assert excerpt(words, sent) == shown
    refusal = httpx.Response(422, json={"error": words})
    assert (PROMPT[10:30] in str(classify(refusal, sent=sent))) == (PROMPT[10:30] in shown)
