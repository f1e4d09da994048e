"""Words of a topic or a model in a prompt, the owner's templates, sizes, and pictures in JSON."""

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.pictures import LIGHTHOUSE
from topicd.backends.picturing import (
    SIDE_STEP_PX,
    WORDS_CHARS_MAX,
    PromptTemplates,
    check_template,
    decoded,
    first_of,
    harmless,
    is_image,
    rounded_up,
)
from topicd.errors import Rejected, RetryLater, TopicdError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
PIECES = [*"<>/:,a1 \n", "lora", "sd_cpp_extra_args", "SD_CPP_EXTRA_ARGS", "<lora:x:1>"]
MARKUP = st.lists(st.sampled_from(PIECES)).map("".join)


class TestHarmless:
    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("a cat", "a cat"),
            ("a cat <lora:evil:1>", "a cat"),
            ("a <lora:evil:1> cat", "a cat"),
            ("a cat <hypernet:evil:1>, at sea", "a cat , at sea"),
            ('a cat <sd_cpp_extra_args>{"steps": 999}</sd_cpp_extra_args> at sea', "a cat at sea"),
            ('a cat <SD_CPP_EXTRA_ARGS>{"steps": 999}</sd_cpp_extra_args>', "a cat"),
            ('a cat <sd_cpp_extra_args>{"steps": 999}', "a cat"),
            ("a cat <lo<lora:evil:1>ra:evil:1>", "a cat lo ra:evil:1"),
            ("a cat <<lora:evil:1>", "a cat"),
            ("3 < 5 and 5 > 3", "3 3"),
            ("two\nlines\tand \x00 more", "two lines and more"),
            (" , a cat, ", "a cat"),
            ("sd_cpp_extra_args", ""),
            ("<>", ""),
            ("", ""),
        ],
    )
    def test_what_is_left(self, text: str, left: str) -> None:
        assert harmless(text) == left

    @given(MARKUP)
    def test_nothing_is_left_that_a_server_obeys_and_twice_is_once(self, text: str) -> None:
        left = harmless(text)
        assert not set(left) & {"<", ">"}
        assert "sd_cpp_extra_args" not in left.lower()
        assert left.isprintable()
        assert harmless(left) == left


class TestTemplates:
    @pytest.mark.parametrize(
        ("positive", "prompt"),
        [
            ("", "a lighthouse, oil"),
            ("$prompt", "a lighthouse"),
            ("${style} of $prompt ($title): $narration", "oil of a lighthouse (Tides): It stands there."),
            ("<lora:mine:1> $prompt", "<lora:mine:1> a lighthouse"),
            ("$prompt for 5 $$", "a lighthouse for 5 $"),
        ],
    )
    def test_the_owners_words_stay_and_those_of_the_scene_are_put_in(self, positive: str, prompt: str) -> None:
        assert PromptTemplates(positive).prompt(LIGHTHOUSE) == prompt

    def test_words_of_a_scene_are_no_template(self) -> None:
        request = replace(LIGHTHOUSE, prompt="$style and ${title}", style="<lora:evil:1>oil")
        assert PromptTemplates().prompt(request) == "$style and ${title}, oil"

    @pytest.mark.parametrize("positive", ["", "$prompt, $style", "$style, $prompt", "$style,, $prompt, $style,"])
    def test_an_empty_style_leaves_no_comma(self, positive: str) -> None:
        assert PromptTemplates(positive).prompt(replace(LIGHTHOUSE, style="")) == "a lighthouse"

    def test_without_a_prompt_the_title_is_drawn(self) -> None:
        assert PromptTemplates().prompt(replace(LIGHTHOUSE, prompt="")) == "Tides, oil"

    def test_nothing_left_of_the_words_is_refused_though_the_template_has_some(self) -> None:
        with pytest.raises(Rejected) as caught:
            PromptTemplates("a fine picture of $prompt").prompt(replace(LIGHTHOUSE, prompt="<lora:evil:1>"))
        assert (caught.value.cause, caught.value.hint) == ("prompt_empty", "write it without < and >")

    def test_the_negative_one_may_be_empty(self) -> None:
        assert PromptTemplates().negative_prompt(LIGHTHOUSE) == ""
        assert PromptTemplates("", "blurry, $style").negative_prompt(LIGHTHOUSE) == "blurry, oil"

    def test_long_words_are_cut(self) -> None:
        assert len(PromptTemplates("$prompt").prompt(replace(LIGHTHOUSE, prompt="sea " * 1000))) <= WORDS_CHARS_MAX

    @pytest.mark.parametrize("text", ["", "$prompt", "${prompt}, $style, $title, $narration", "5 $$"])
    def test_good_ones(self, text: str) -> None:
        assert check_template(text) == text

    @pytest.mark.parametrize(
        ("text", "words"),
        [("$promt", "$promt in it is no placeholder"), ("5 $", "write $$"), ("${", "write $$"), ("$Prompt", "$Prompt")],
    )
    def test_bad_ones_say_what_is_wrong(self, text: str, words: str) -> None:
        with pytest.raises(ValueError, match="placeholder") as caught:
            check_template(text)
        assert words in str(caught.value)


class TestDecoded:
    @pytest.mark.parametrize("before", ["", "data:image/png;base64,", "data:image/svg+xml;base64,"])
    def test_a_picture(self, before: str) -> None:
        assert decoded(before + base64.b64encode(PNG).decode(), of="gpu:1") == PNG

    @pytest.mark.parametrize(
        "text",
        ["", "=", "*", "ünï", base64.b64encode(b"GIF89a").decode(), "data:image/png," + base64.b64encode(PNG).decode()],
    )
    def test_none(self, text: str) -> None:
        assert trouble(text) == (RetryLater, "not_image")

    def test_a_large_one_is_refused_before_it_is_decoded(self) -> None:
        assert trouble("*" * 200) == (Rejected, "answer_too_large")


def trouble(text: str) -> tuple[type[TopicdError], str]:
    with pytest.raises(TopicdError) as caught:
        decoded(text, of="gpu:1", bytes_max=100)
    return type(caught.value), caught.value.cause


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (PNG, True),
        (b"\xff\xd8\xff\xe0", True),
        (b"RIFF\0\0\0\0WEBP", True),
        (b"RIFF\0\0\0\0WAVE", False),
        (b"GIF89a", False),
        (b"\x89PNG", False),
        (b"", False),
    ],
)
def test_pictures_are_told_by_how_they_begin(data: bytes, is_one: bool) -> None:  # noqa: FBT001 - a parameter
    assert is_image(data) == is_one


@given(st.integers(1, 10_000))
def test_a_side_is_rounded_up_by_less_than_a_step(side_px: int) -> None:
    assert rounded_up(side_px) % SIDE_STEP_PX == 0
    assert 0 <= rounded_up(side_px) - side_px < SIDE_STEP_PX


@pytest.mark.parametrize("value", [{"a": []}, {"a": "x"}, {"a": None}, {}, [1], None, 7])
def test_there_is_no_first(value: object) -> None:
    assert first_of(value, "a") is None


def test_the_first() -> None:
    assert first_of({"a": [1, 2]}, "a") == 1
