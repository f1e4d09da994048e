"""Prompts of a person's own, the schema, and how an answer is brought to be a script."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.ollama_server import script_answer
from topicd.backends import writing
from topicd.backends.base import ScriptRequest
from topicd.backends.writing import PROMPT_BYTES_MAX, Message, Prompts
from topicd.errors import RetryLater, Unusable

TOPIC = ScriptRequest("Tides", "the $moon", "pt-BR", 2, "", 42)


def trouble_of(prompts: Prompts, request: ScriptRequest = TOPIC) -> Unusable:
    with pytest.raises(Unusable) as caught:
        prompts.prompt(request)
    assert caught.value.cause == "prompt_template"
    assert caught.value.hint
    return caught.value


class Model:
    """Answers each chat with the next of its answers."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[list[Message]] = []

    async def __call__(self, messages: Sequence[Message]) -> str:
        self.asked.append(list(messages))
        return self.answers.pop(0)


class TestPrompts:
    @pytest.mark.parametrize(
        ("own", "language", "taken"),
        [
            ((), "pt-BR", "português do Brasil"),
            (("pt-BR",), "pt-BR", "own pt-BR"),
            (("PT-br",), "pt-BR", "own PT-br"),
            (("pt-BR",), "PT-BR", "own pt-BR"),
            (("pt", "en"), "pt-BR", "português do Brasil"),
            (("pt", "en"), "pt-PT", "own pt"),
            (("en",), "pt-PT", "own en"),
            (("en",), "en-GB", "own en"),
            (("zh-hant", "zh"), "zh-Hant-TW", "own zh-hant"),
            ((), "fr", "You write the narration"),
            ((), "../x", "You write the narration"),
            ((), "", "You write the narration"),
        ],
    )
    def test_which_is_taken(self, tmp_path: Path, own: tuple[str, ...], language: str, taken: str) -> None:
        for name in own:
            (tmp_path / f"{name}.txt").write_text(f"own {name}")
        assert taken in Prompts(tmp_path).prompt(replace(TOPIC, language=language))

    def test_what_is_filled_in(self, tmp_path: Path) -> None:
        (tmp_path / "pt-BR.txt").write_text("\ufeff$title|$guidance|${style}|$language|$scenes|$$5", encoding="utf-8")
        assert Prompts(tmp_path).prompt(TOPIC) == "Tides|the $moon|-|pt-BR|2|$5"

    def test_it_is_read_when_it_is_used(self, tmp_path: Path) -> None:
        prompts = Prompts(tmp_path / "later")
        packaged = prompts.prompt(TOPIC)
        (tmp_path / "later").mkdir()
        file = tmp_path / "later" / "pt-BR.txt"
        file.write_text("one")
        assert prompts.prompt(TOPIC) == "one"
        file.write_text("two")
        assert prompts.prompt(TOPIC) == "two"
        file.unlink()
        assert prompts.prompt(TOPIC) == packaged

    def test_the_digest_follows_the_prompts(self, tmp_path: Path) -> None:
        prompts = Prompts(tmp_path)
        digests = [prompts.digest()]
        assert digests == [Prompts().digest()] == [prompts.digest()]
        for text in (b"one", b"two", b"\xff"):
            (tmp_path / "en.txt").write_bytes(text)
            digests.append(prompts.digest())
            assert prompts.digest() == digests[-1]
        assert len(set(digests)) == 4

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"Sing of $titel.", "pt-BR.txt has an unknown placeholder, $titel"),
            (b"Sing of ${title.lower}.", "pt-BR.txt has a $ that begins no placeholder"),
            (b"It costs $5.", "pt-BR.txt has a $ that begins no placeholder"),
            (b"\xff$title", "pt-BR.txt is not UTF-8"),
            (b" \n", "pt-BR.txt is empty"),
            (b"x" * (PROMPT_BYTES_MAX + 1), "pt-BR.txt is larger than 65536 bytes"),
        ],
    )
    def test_one_that_cannot_be_used_is_named(self, tmp_path: Path, data: bytes, words: str) -> None:
        (tmp_path / "pt-BR.txt").write_bytes(data)
        assert words in trouble_of(Prompts(tmp_path)).message

    def test_one_without_a_byte_is_not_there_yet(self, tmp_path: Path) -> None:
        (tmp_path / "pt-BR.txt").touch()
        assert Prompts(tmp_path).text("pt-BR") == Prompts().text("pt-BR")
        assert Prompts(tmp_path).digest() == Prompts().digest()

    def test_one_that_is_not_needed_does_no_harm(self, tmp_path: Path) -> None:
        (tmp_path / "pt-BR.txt").write_text("$nonsense")
        (tmp_path / "notes.md").write_text("$nonsense")
        assert "Language: fr" in Prompts(tmp_path).prompt(replace(TOPIC, language="fr"))

    def test_the_largest(self, tmp_path: Path) -> None:
        (tmp_path / "pt-BR.txt").write_bytes(b"x" * PROMPT_BYTES_MAX)
        assert len(Prompts(tmp_path).prompt(TOPIC)) == PROMPT_BYTES_MAX

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pt-BR.txt")
        assert "is not a file" in trouble_of(Prompts(tmp_path)).message
        assert Prompts(tmp_path).digest()

    def test_a_link_to_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "pt-BR.txt").symlink_to(tmp_path / "gone")
        assert "pt-BR.txt" in trouble_of(Prompts(tmp_path)).message

    def test_a_directory_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "prompts").write_text("x")
        prompts = Prompts(tmp_path / "prompts")
        assert "cannot be read" in trouble_of(prompts).message
        assert prompts.digest() == Prompts().digest()


class TestWrite:
    async def test_repairs_are_limited(self) -> None:
        model = Model("{", "{", "{")
        with pytest.raises(RetryLater) as caught:
            await writing.write(model, TOPIC, Prompts(), repairs_max=2)
        assert caught.value.cause == "script_invalid"
        assert [len(messages) for messages in model.asked] == [1, 3, 3]
        assert model.asked[2][1] == {"role": "assistant", "content": "{"}

    async def test_a_good_answer_is_not_asked_for_again(self) -> None:
        model = Model(script_answer(2))
        script = await writing.write(model, TOPIC, Prompts(), repairs_max=2)
        assert (script.title, len(script.scenes), len(model.asked)) == ("Tides", 2, 1)

    async def test_a_prompt_that_cannot_be_used_asks_nobody(self, tmp_path: Path) -> None:
        (tmp_path / "pt-BR.txt").write_text("$nonsense")
        model = Model()
        with pytest.raises(Unusable):
            await writing.write(model, TOPIC, Prompts(tmp_path), repairs_max=2)
        assert not model.asked


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("<think>a</think>b", "b"),
        ("a</THINKING>\nb", "b"),
        ("b <think>a", "b"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("half \ud83c", "half ?"),
    ],
)
def test_thought_is_taken_out(text: str, spoken: str) -> None:
    assert writing.without_thought(text) == spoken


@pytest.mark.parametrize(
    ("text", "reason", "cause"), [("x", "", "answer_cut"), ("x", "length", "script_cut"), (" ", "stop", "script_empty")]
)
def test_what_is_not_whole(text: str, reason: str, cause: str) -> None:
    with pytest.raises(RetryLater) as caught:
        writing.whole(text, reason, server="it", model="tiny", hint="raise it")
    assert caught.value.cause == cause


def test_the_schema_is_strict() -> None:
    found = writing.schema(3)
    scenes = found["properties"]["scenes"]
    assert (scenes["minItems"], scenes["maxItems"]) == (3, 3)
    for part in (found, scenes["items"]):
        assert part["required"] == list(part["properties"])
        assert part["additionalProperties"] is False
