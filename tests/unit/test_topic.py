import dataclasses
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topicd.errors import Rejected
from topicd.front_matter import FRONT_MATTER_CHARS_MAX, SEED_MAX, Options
from topicd.topic import (
    DATA_BYTES_MAX,
    Topic,
    is_topic_name,
    parse,
    source_slug,
)

TOP = Path(__file__).resolve().parents[2]
CAUSES = {
    "topic_empty",
    "topic_too_long",
    "topic_not_text",
    "topic_not_utf8",
    "front_matter_broken",
    "front_matter_unknown",
    "front_matter_value",
}
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def read(text: str) -> Topic:
    return parse(text.encode(), scenes_max=20)


def refused(data: str | bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        parse(data.encode() if isinstance(data, str) else data, scenes_max=20)
    return caught.value


def options(front_matter: str) -> Options:
    return read(f"---\n{front_matter}\n---\nA title\n").options


def fault(front_matter: str) -> Rejected:
    return refused(f"---\n{front_matter}\n---\nA title\n")


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\u2028"])
def test_encodings_and_line_ends_give_the_same_topic(encoding: str, end: str) -> None:
    text = "---\nseed: 7\n---\n# Maré alta 🌊\n\nPor quê?\n- a Lua\n".replace("\n", end)
    assert parse(text.encode(encoding), scenes_max=5) == Topic("Maré alta 🌊", "Por quê?\n- a Lua", Options(seed=7))


def test_big_endian_utf16_is_understood() -> None:
    assert parse(b"\xfe\xff" + "Maré".encode("utf-16-be"), scenes_max=5).title == "Maré"


@pytest.mark.parametrize(
    "text",
    ["", " \n\t\n", "\ufeff", "\u200b\u200d", "---\n---\n", "---\nseed: 1\n---\n \n", "---", "***\n??\n# \n"],
)
def test_a_topic_without_words_is_empty(text: str) -> None:
    assert refused(text).cause == "topic_empty"


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"Tides\n\x00", "line 2"),
        (b"Tides\r\n\r\nred \x1b[31m", "line 3"),
        ("Tides\x9b".encode(), "U+009B"),
        ("Tides\uffff".encode(), "U+FFFF"),
        ("Tides".encode("utf-16-le"), "U+0000"),
        ("Tides\x07".encode("utf-16"), "U+0007"),
        (b"\x89PNG\r\n\x1a\n", "offset 6"),
        (b"\x7fELF\xff", "offset 0"),
    ],
)
def test_what_is_not_text_is_told_with_its_place(data: bytes, place: str) -> None:
    error = refused(data)
    assert error.cause == "topic_not_text"
    assert place in error.message


def test_latin1_is_refused_with_its_offset_and_a_guess() -> None:
    error = refused("A maré não é só água.\n".encode("latin-1"))
    assert error.cause == "topic_not_utf8"
    assert "0xE9 at offset 5" in error.message
    assert "Latin-1" in error.hint


@pytest.mark.parametrize(
    ("data", "offset"),
    [("maré".encode() + b"\xc3", 5), (b"\xef\xbb\xbfab\xff" + "maré".encode(), 5)],
)
def test_damaged_utf8_is_not_taken_for_latin1(data: bytes, offset: int) -> None:
    error = refused(data)
    assert error.cause == "topic_not_utf8"
    assert f"offset {offset} " in error.message
    assert "Latin-1" not in error.hint
    assert "UTF-8" in error.hint


def test_cut_utf16_is_refused() -> None:
    error = refused("Tides".encode("utf-16")[:-1])
    assert (error.cause, "offset 10 " in error.message) == ("topic_not_utf8", True)


def test_a_file_beyond_the_limit_is_refused() -> None:
    assert read("a" * DATA_BYTES_MAX).title.startswith("aaa")
    assert refused("a" * (DATA_BYTES_MAX + 1)).cause == "topic_too_long"


# Title and guidance


@pytest.mark.parametrize(
    ("text", "title", "guidance"),
    [
        ("# Tides #\n\nWhy?\n", "Tides", "Why?"),
        ("Tides\n=====\nWhy?", "Tides", "Why?"),
        ("Tides\n---\nWhy?", "Tides", "Why?"),
        ("\n\n  Tides  \nWhy?", "Tides", "Why?"),
        ("Only a title", "Only a title", ""),
        ("By me.\n\n# Tides\nWhy?", "Tides", "By me.\n\nWhy?"),
        ("By me.\n\nTides\n==\nWhy?", "Tides", "By me.\n\nWhy?"),
        ("Tides\n\n## Causes\nWhy?", "Tides", "## Causes\nWhy?"),
        ("## Tides\nWhy?", "Tides", "Why?"),
        ("- Tides\n- Why?", "Tides", "- Why?"),
        ("***\n\nTides", "Tides", "***"),
        ("A shell\n```\n# not a heading\n```", "A shell", "```\n# not a heading\n```"),
        ("A shell\n  ~~~ sh\n# not a heading\n  ~~~", "A shell", "~~~ sh\n# not a heading\n  ~~~"),
        ("#tides are fun\nWhy?", "#tides are fun", "Why?"),
        ("#   \nTides", "Tides", "#"),
        ("# Tides\n\n    code\n\ttab", "Tides", "code\n\ttab"),
    ],
)
def test_title_and_guidance(text: str, title: str, guidance: str) -> None:
    assert read(text) == Topic(title, guidance, Options())


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("**Tides** and *the* __sea__ _now_", "Tides and the sea now"),
        ("***Tides*** ~~not~~ `code`", "Tides not code"),
        ("**bold *within* bold**", "bold within bold"),
        ("[Tides](https://example.org/a_(b)) ![pic](x.png) [ref][1]", "Tides pic ref"),
        ("[![badge](b.svg)](https://example.org)", "badge"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        (r"\*kept\* \# 1", "*kept* # 1"),
        ("> 1984: a\tnovel", "1984: a novel"),
        ("C# or C #", "C# or C #"),
        ("zero\u200bwidth \u202egnp.exe", "zerowidth gnp.exe"),
        ("می\u200cروم جزر و مد", "می\u200cروم جزر و مد"),
        (FAMILY, FAMILY),
    ],
)
def test_markdown_and_unseen_characters_leave_the_title(line: str, title: str) -> None:
    assert read(f"{line}\nmore").title == title
    assert read(f"{line}\nmore").text == "more"


def test_a_long_first_line_is_cut_at_a_word_and_kept_whole_in_the_text() -> None:
    line = "word " * 100 + "last"
    topic = read(line)
    assert topic.title == "word " * 39 + "word…"
    assert topic.text == line


@pytest.mark.parametrize("cluster", ["e\u0301\u0323", FAMILY, "\U0001f44d\U0001f3fd", "क्षि"])
def test_a_long_word_is_cut_between_characters_as_seen(cluster: str) -> None:
    for shift in range(6):
        title = read("x" * shift + cluster * 200).title
        body = title.removesuffix("…")
        assert 100 <= len(body) < 200
        assert re.fullmatch(f"x*({cluster})*", body) or cluster.startswith("क")
        assert not body.endswith("\u200d")


def test_marks_without_end_do_not_empty_the_title() -> None:
    assert 100 <= len(read("e" + "\u0301" * 5000).title) <= 200


def test_front_matter_title_wins_and_the_body_stays_whole() -> None:
    topic = read("---\ntitle: Mine\n---\n# Theirs\n\nWhy?\n")
    assert topic == Topic("Mine", "# Theirs\n\nWhy?", Options(title="Mine"))


def test_a_title_alone_in_front_matter_is_a_topic() -> None:
    assert read("---\ntitle: Mine\n---") == Topic("Mine", "", Options(title="Mine"))


@pytest.mark.parametrize("rule", ["---\n", "---  \n\n"])
def test_a_rule_at_the_top_is_not_front_matter(rule: str) -> None:
    assert read(f"{rule}Tides\n\ntitle: of a book\n") == Topic("Tides", "title: of a book", Options())


@pytest.mark.parametrize("text", ["---\ntitle: Tides\nWhy?", "---\n\n\nauthor: me\nScenes : 3\n\nTides"])
def test_front_matter_that_is_never_closed_is_told(text: str) -> None:
    error = refused(text)
    assert error.cause == "front_matter_broken"
    assert "line 1 " in error.message
    assert "never closed" in error.message


# Front matter


def test_every_key_is_read() -> None:
    keys = ["title: T", "language: pt-BR", "voice: en_US-joe.medium", "scenes: 20", "style: calm"]
    assert options("\n".join([*keys, "seed: 2147483647"])) == Options(
        "T", "pt-BR", "en_US-joe.medium", 20, "calm", SEED_MAX
    )


@pytest.mark.parametrize(
    ("front_matter", "expected"),
    [
        ("", Options()),
        ("# only a comment", Options()),
        ("title:\nseed: ~\nvoice: null", Options()),
        ('language: "no"', Options(language="no")),
        ("title: '1984'", Options(title="1984")),
        ("title: 'Tides: why'", Options(title="Tides: why")),
        ("title: >\n  Tides\n  and more", Options(title="Tides and more")),
        ("style: ''", Options(style="")),
        ("scenes: 1\nseed: 0", Options(scenes=1, seed=0)),
        ("{seed: 3, language: zh-Hant-TW}", Options(seed=3, language="zh-Hant-TW")),
        (f"title: {'x' * 200}\nstyle: {'y' * 500}", Options(title="x" * 200, style="y" * 500)),
    ],
)
def test_values_that_are_allowed(front_matter: str, expected: Options) -> None:
    assert options(front_matter) == expected


def test_three_dots_close_front_matter() -> None:
    assert read("---\nseed: 4\n...\nTides") == Topic("Tides", "", Options(seed=4))


@pytest.mark.parametrize(
    "value",
    [
        "scenes: 0",
        "scenes: 21",
        "scenes: true",
        "scenes: '5'",
        "scenes: 5.0",
        "scenes: 010",
        "scenes: 1_0",
        "scenes: [5]",
        "scenes: 999999999999999999999",
        "seed: -1",
        "seed: 2147483648",
        "seed: 0o7",
        "seed: 0x7",
        "seed: 1:30",
        "language: no",
        "language: english",
        "language: pt_BR",
        "language: en-",
        "language: " + "en" + "-abcdefgh" * 4,
        "title: 1984",
        "title: 2026-11-22",
        "title: ''",
        "title: ' '",
        'title: "a\\u0007b"',
        'title: "\\ud800"',
        'title: "\\u200b"',
        "title: " + "x" * 201,
        "title: {a: b}",
        "title: =",
        "style: " + "x" * 501,
        "style: |\n  a\n  b",
        "voice: ../x",
        "voice: ..",
        "voice: -x",
        "voice: " + "x" * 101,
        "voice: é",
    ],
)
def test_values_that_are_refused_say_line_and_key(value: str) -> None:
    key = value.partition(":")[0]
    error = fault(f"# a comment\n{value}")
    assert error.cause == "front_matter_value"
    assert f"line 3 of the file: {key} must be " in error.message


@pytest.mark.parametrize(
    ("value", "says", "hint"),
    [
        ("language: no", "takes no for true or false", '`language: "no"`'),
        ("title: 2026-11-22", "takes 2026-11-22 for a date", '`title: "2026-11-22"`'),
        ("title: 1.0", "takes 1.0 for a number", '`title: "1.0"`'),
        ("seed: 0o7", "from 0 to 2147483647; here is `0o7`", "plain digits"),
        ("scenes: '5'", "from 1 to 20; here is '5'", "without quotes"),
        ("voice: [a]", "a list or mapping", "one value"),
    ],
)
def test_oddities_of_yaml_are_told_in_clear_words(value: str, says: str, hint: str) -> None:
    error = fault(value)
    assert says in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("front_matter", "line", "hint"),
    [
        ("seed: 1\nTitle: x", 3, "Did you mean title?"),
        ("langauge: en", 2, "Did you mean language?"),
        ("SEED: 1", 2, "Did you mean seed?"),
        ("título: x", 2, "Did you mean title?"),
        ("\n\ntags: [a, [b]]", 4, "The keys are title, language, voice, scenes, style, seed."),
        ("? [a]\n: b", 2, "The keys are"),
        ("<<: x", 2, "The keys are"),
    ],
)
def test_unknown_keys_say_line_and_nearest_key(front_matter: str, line: int, hint: str) -> None:
    error = fault(front_matter)
    assert error.cause == "front_matter_unknown"
    assert f"line {line} " in error.message
    assert error.hint.startswith(hint)


@pytest.mark.parametrize(
    ("front_matter", "line", "says"),
    [
        ("seed: 1\ntitle: Tides: why", 3, "mapping values are not allowed"),
        ("title: x\n\tseed: 1", 3, r"\t"),
        ("title: [a", 3, "expected"),
        ("- a\n- b", 2, "key: value"),
        ("just words", 2, "key: value"),
        ("seed: 1\nseed: 2", 3, "seed is given a second time"),
        ("seed: 1\nseed:", 3, "second time"),
        ("title: &a x", 2, "anchors"),
        ("title: *a", 2, "aliases"),
        ("seed: !!int 5", 2, "tags"),
        ("title: !!python/object/apply:os.system [ls]", 2, "tags"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", 2, "anchors"),
        ('title: "\\UFFFFFFFF"', 1, "escape"),
        ("--- two\n--- documents", 3, "another document"),
        ("title: x\n" + "a: " + "[" * 4000, 3, "too deeply"),
        ("a: " + "{a: " * 900, 2, "too deeply"),
        ("- " * 2000, 2, "too deeply"),
        ("#" * (FRONT_MATTER_CHARS_MAX + 1), 1, "longer than 4096"),
    ],
)
def test_broken_front_matter_says_line_and_what(front_matter: str, line: int, says: str) -> None:
    error = fault(front_matter)
    assert error.cause == "front_matter_broken"
    assert f"line {line} " in error.message
    assert says in error.message


# Any bytes

FRAGMENTS = [
    *[
        "---",
        "...",
        "title:",
        "seed:",
        "-",
        "?",
        ":",
        "&a",
        "*a",
        "!!x",
        "<<",
        "[",
        "]",
        "{",
        "}",
        "'",
        "|",
        ">",
        "%YAML",
        "no",
        "0o7",
        "2026-11-22",
        "~",
        "#",
        "=",
        "===",
        "*",
        "**",
        "_",
        "`",
        "```",
    ],
    *['"', "\\x41", "\\ud800", "\\UFFFFFFFF", "\\", "~~", "](", ")", "![", "word", "é", "🌊", "שלום"],
    *["\n", "\n", "\n", "\n", "\r", " ", " ", "  ", "\t", "# ", ": ", "- ", "scenes: 5", "\nseed: 1\n"],
    *["\u0301", "\u200d", "\u202e", "\u2028", "\x85", "\ufeff", "\x00", "\x1b"],
]
TANGLES = st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join)
INPUTS = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300).map(str.encode),
    TANGLES.map(str.encode),
    TANGLES.map(lambda text: f"---\n{text}\n---\n{text}".encode()),
    TANGLES.map(lambda text: text.encode("utf-16")),
    TANGLES.map(lambda text: text.encode("latin-1", "replace")),
)


def check_topic(topic: Topic) -> None:
    assert 1 <= len(topic.title) <= 200
    assert topic.title == topic.title.strip()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", topic.title)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", topic.text)
    (topic.title + topic.text + str(topic.options)).encode()
    assert topic.options.scenes is None or 1 <= topic.options.scenes <= 20
    assert topic.options.seed is None or 0 <= topic.options.seed <= SEED_MAX


def check_error(error: Rejected) -> None:
    assert error.cause in CAUSES
    assert error.message.isprintable()
    assert len(error.message) <= 400
    assert error.hint


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(INPUTS)
def test_any_bytes_give_a_topic_or_a_refusal(data: bytes) -> None:
    try:
        check_topic(parse(data, scenes_max=20))
    except Rejected as error:
        check_error(error)


@given(st.lists(st.text("abc \nXYZ.,", min_size=1), min_size=1))
def test_no_word_is_lost(parts: list[str]) -> None:
    text = "# T\n" + "\n".join(parts)
    assert read(text).text.split() == text.split()[2:]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 65_536,
        "[" * 65_536,
        "# " + "`" * 65_534,
        "# " + "*_" * 32_767,
        "# __ __\n" * 8_192,
        "![](a)\n" * 9_362,
        "*\n" * 32_768,
        "a\n===\n" * 10_922,
        ("# ![](a)" + "`" * 1_900 + "\n") * 34,
        ("# ![](a)[](" + "(" * 1_900 + "\n") * 34,
        ("# ![](a)" + "*_" * 950 + "\n") * 34,
        " " * 65_536,
        "e" + "\u0301" * 32_767,
        "---\n" * 16_384,
        "---\n" + "[" * 4_000 + "\n---\n",
        "---\n" + "{" * 4_000 + "\n---\n",
        "---\n" + "a: b\n" * 800 + "---\n",
        "---\n" + "?\n" * 2_000 + "---\n",
        '---\n"' + "\\x41" * 1_000 + '"\n---\n',
    ],
    ids=lambda text: repr(text[:8]),
)
def test_hostile_text_of_64_kib_is_answered_soon(text: str) -> None:
    began_s = time.process_time()
    try:
        check_topic(read(text))
    except Rejected as error:
        check_error(error)
    assert time.process_time() - began_s < 2


def test_values_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read("Tides").title = "x"  # type: ignore[misc]  # what is tested


# Names


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Tides.md", "tides"),
        ("Maré Alta — versão 2.TXT", "mare-alta-versao-2"),
        ("Straße.md", "strasse"),
        ("\U0001f130\ufb01le.md", "afile"),
        ("notes.v1.md", "notes-v1"),
        ("no-ending", "no-ending"),
        ("海.md", "topic"),
        ("", "topic"),
        ("..", "topic"),
        ("---.md", "topic"),
        ("-rf.md", "rf"),
        ("../../etc/passwd.md", "etc-passwd"),
        ("a\nb\x00c.md", "a-b-c"),
        ("ol\udce1 mundo.md", "ol-mundo"),
        ("a" * 39 + " b.md", "a" * 39),
        ("x" * 251 + ".md", "x" * 40),
    ],
)
def test_source_slug(name: str, slug: str) -> None:
    assert source_slug(name) == slug


@given(st.text(max_size=255) | st.binary(max_size=255).map(os.fsdecode))
def test_any_name_has_a_slug(name: str) -> None:
    assert re.fullmatch(r"(?!-)[a-z0-9-]{1,40}(?<!-)", source_slug(name))
    is_topic_name(name)


@pytest.mark.parametrize(
    "name",
    ["a.md", "A.MD", "notes.txt", "-rf.Txt", "a\nb.md", "\udce1.md", "a..md", "#a.md", "a.part.md", "~a.md"],
)
def test_names_of_topics(name: str) -> None:
    assert is_topic_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *[
            ".md",
            ".a.md",
            "._a.md",
            "~$a.md",
            "a.md.part",
            "a.md.tmp",
            ".a.md.swp",
            "a.md~",
            "..",
            "../a.md",
            "a/b.md",
            "#a.md#",
            ".~lock.a.md#",
        ],
        *[
            ".DS_Store",
            "Thumbs.db",
            "desktop.ini",
            ".stfolder",
            ".stversions",
            ".localized",
            "@eaDir",
            ".Trash-1000",
        ],
        *["", "a.pdf", "md", "a.mdx", "a.md ", "a.md\n", "a.tmp", "a.swp", "a.part"],
    ],
)
def test_names_to_leave_alone(name: str) -> None:
    assert not is_topic_name(name)


def test_the_example_is_a_good_topic() -> None:
    topic = parse((TOP / "examples/tides.md").read_bytes(), scenes_max=20)
    assert topic.title == "Why the sea rises and falls"
    assert topic.options.scenes == 5
    assert 8 <= topic.text.count("\n- ") + 1 <= 12
