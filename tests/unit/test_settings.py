"""The settings: every bound, every name, and words for what is wrong that tell no secret."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

import topicd.settings
from topicd.backends.limits import Rate
from topicd.errors import Unusable
from topicd.settings import CREDENTIALS, PREFIX, Settings, env_name, example, is_secret, load, misspelt
from topicd.settings_servers import headers_of
from topicd.startup import check_files

REPOSITORY = Path(__file__).parents[2]
FIELDS: dict[str, FieldInfo] = dict(Settings.model_fields)
SHARED = ("OLLAMA_", "OPENAI_", "TTS_", "SD_", "SSL_")
OWNERS = sorted(name for name in (env_name(*field) for field in FIELDS.items()) if not name.startswith(PREFIX))


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting is set, and the current directory has no .env."""
    for name in list(os.environ):
        if name.startswith((PREFIX, *SHARED)) or name == CREDENTIALS:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def refused(**environ: str) -> str:
    """Return what is said of a wrong environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        with pytest.raises(Unusable) as caught:
            load()
    assert caught.value.cause == "settings"
    assert ".env.example" in caught.value.hint
    return caught.value.message


def loaded(**environ: str) -> Settings:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        return load()


def bounds() -> Iterator[tuple[str, str, float, float]]:
    for name, info in FIELDS.items():
        found = {key: getattr(rule, key) for rule in info.metadata for key in ("ge", "le") if hasattr(rule, key)}
        if found:
            yield name, env_name(name, info), found["ge"], found["le"]


NUMBERS = [*bounds()]


def test_every_number_has_both_bounds() -> None:
    numbers = {name for name, info in FIELDS.items() if info.annotation in (int, float)}
    assert numbers == {name for name, *_ in NUMBERS}
    assert len(numbers) > 20


@pytest.mark.parametrize(("name", "variable", "least", "most"), NUMBERS, ids=[entry[0] for entry in NUMBERS])
def test_the_bounds_hold(name: str, variable: str, least: float, most: float) -> None:
    step = 8 if name.endswith("_px") else 1 if FIELDS[name].annotation is int else 0.001
    for value in (least, most):
        assert getattr(loaded(**{variable: f"{value}"}), name) == value
    for value in (least - step, most + step):
        assert refused(**{variable: f"{value}"}).startswith(f"{variable}='{value}': ")
    for word in ("", "many", "nan", "inf", "1 s", "0x10"):
        assert f"{variable}='{word}'" in refused(**{variable: word})


@pytest.mark.parametrize(
    ("variable", "good", "bad"),
    [
        ("TOPICD_SCRIPT_BACKEND", ["auto", "ollama", "my.module:Class"], ["", "a b", "module:", ":Class", "os.system"]),
        ("OLLAMA_BASE_URL", ["", "http://gpu:11434", "https://a.b/c"], ["gpu", "ftp://gpu", "http://", "http:// x"]),
        ("TTS_BASE_URL", ["", "http://[::1]:5000"], ["http:///x", "//x"]),
        ("SD_BASE_URL", ["", "http://127.0.0.1:7860"], ["localhost:7860"]),
        ("SD_ENABLED", ["true", "false", "1", "0", "yes", "off"], ["", "maybe", "2"]),
        ("SSL_VERIFY", ["true", "FALSE"], ["sometimes"]),
        ("TOPICD_LANGUAGE", ["en", "pt-BR", "sr-Latn-RS"], ["", "english!", "e", "en_US"]),
        ("TOPICD_WATCH_MODE", ["auto", "events", "poll"], ["", "Poll", "inotify"]),
        ("TOPICD_LOG_FORMAT", ["auto", "json", "text"], ["xml"]),
        ("TOPICD_LOG_LEVEL", ["debug", "error"], ["loud", "INFO"]),
        ("TOPICD_METRICS_HOST", ["0.0.0.0", "::", "localhost"], ["", "h" * 256]),  # noqa: S104 - a value to be read
        ("OLLAMA_MODEL", ["", "m" * 200], ["m" * 201]),
        ("TTS_VOICE", ["", "v" * 100], ["v" * 101]),
        ("TOPICD_IMAGE_WIDTH_PX", ["256", "1024"], ["257", "1020.5"]),
    ],
)
def test_words_are_bounded_too(variable: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        loaded(**{variable: value})
    for value in bad:
        assert variable in refused(**{variable: value})


def test_every_fault_is_told_in_one_line_each() -> None:
    lines = refused(TOPICD_SCENES="0", TOPICD_LOG_LEVEL="loud", TOPICD_SETLE_S="1", SSL_VERIFY="maybe").splitlines()
    assert [re.split("[=:]", line)[0] for line in lines] == [
        "TOPICD_SETLE_S",
        "SSL_VERIFY",
        "TOPICD_SCENES",
        "TOPICD_LOG_LEVEL",
    ]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("TOPICD_SETLE_S", "TOPICD_SETTLE_S"),
        ("TOPICD_METRIC_PORT", "TOPICD_METRICS_PORT"),
        ("TOPICD_HOM", "TOPICD_HOME"),
        ("TOPICD_LOGLEVEL", "TOPICD_LOG_LEVEL"),
        ("TOPICD_SETTLE_MS", "TOPICD_SETTLE_S"),
    ],
)
def test_a_name_nobody_reads_is_told_with_the_one_that_was_meant(wrong: str, meant: str) -> None:
    assert refused(**{wrong: "1"}) == f"{wrong}: there is no such setting; did you mean {meant}?"


def test_a_name_like_no_other_has_no_suggestion() -> None:
    assert refused(TOPICD_XQZJW="1") == "TOPICD_XQZJW: there is no such setting"


def test_names_of_others_are_none_of_our_business() -> None:
    settings = loaded(HOME="/nowhere", LANGUAGE="xx:yy", SCENES="999", LOG_LEVEL="loud", TOPIC="x", OLLAMA_HOST="x")
    assert settings == Settings()


def test_owners_names_have_no_prefix_and_all_others_have_it() -> None:
    assert len(OWNERS) > 30
    assert all(name.startswith(SHARED) for name in OWNERS)
    settings = loaded(OLLAMA_MODEL="qwen3", SD_ENABLED="true", SSL_VERIFY="false", TTS_VOICE="joe")
    assert (settings.ollama_model, settings.sd_enabled, settings.ssl_verify, settings.tts_voice) == (
        "qwen3",
        True,
        False,
        "joe",
    )


@pytest.mark.parametrize("name", OWNERS)
def test_an_owners_name_with_the_prefix_is_told(name: str) -> None:
    assert f"TOPICD_{name}: there is no such setting" in refused(**{f"TOPICD_{name}": "true"})


def test_the_file_in_the_current_directory_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nTOPICD_SCENES=7\nTOPICD_LANGUAGE='pt-BR'\nOLLAMA_MODEL=qwen3\nOTHER=1\n")
    settings = loaded(TOPICD_LANGUAGE="de")
    assert (settings.scenes, settings.language, settings.ollama_model) == (7, "de", "qwen3")


def test_faults_in_the_file_are_told_as_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TOPICD_SETLE_S=1\nTOPICD_SCENES=many\n")
    told = refused()
    assert "TOPICD_SETLE_S: there is no such setting" in told
    assert "TOPICD_SCENES='many'" in told


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"TOPICD_LANGUAGE=mar\xe9\n")
    assert refused().startswith(".env: ")


def test_a_directory_of_that_name_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert refused() == ".env is a directory: move it away, or make it a file"


def test_a_line_that_is_no_setting_is_told_by_its_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_text(f"# fine\n{SECRET} is no setting\nTOPICD_SCENES=7\n\nTOPICD_SCENES\n")
    assert refused().splitlines() == [".env, line 2, is no NAME=value", ".env, line 5, is no NAME=value"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("TOPICD_LANGUAGE", "portuguese!", "a tag such as en or pt-BR"),
        ("SD_ENABLED", "maybe", "true or false"),
        ("TOPICD_SCENES", "many", "a whole number"),
        ("TOPICD_SCENES", "1.5", "a whole number"),
        ("TOPICD_SETTLE_S", "soon", "a number"),
        ("OLLAMA_RATE", "often", "a number and a time, such as 10/min (s, min, h, d); or nothing"),
        ("OLLAMA_KEEP_ALIVE", "long", "a time such as 5m (s, m, h), 0, or -1 for ever"),
        ("TOPICD_PAGE_HOSTS", "A!", "names such as topicd.example.org, in small letters"),
        ("TOPICD_IMAGE_BACKEND", "a b", "a name such as auto or embedded, or package.module:Class"),
        ("OLLAMA_BASE_URL", "gpu", "an address begins with http:// or https://"),
        ("OLLAMA_BASE_URL", "http://gpu:99999", "the port of an address is a number from 1 to 65535"),
        ("OLLAMA_BASE_URL", "http://gpu:0/x", "the port of an address is a number from 1 to 65535"),
    ],
)
def test_what_would_be_right_is_told_in_plain_words(variable: str, value: str, why: str) -> None:
    assert refused(**{variable: value}) == f"{variable}={value!r}: {why}"


def test_every_pattern_has_its_words() -> None:
    def patterns(schema: object) -> Iterator[str]:
        for key, value in schema.items() if isinstance(schema, dict) else []:
            yield from [value] if key == "pattern" else patterns(value)
        for value in schema if isinstance(schema, list) else []:
            yield from patterns(value)

    found = {*patterns(Settings.model_json_schema())}
    assert len(found) > 4
    assert found <= {*topicd.settings.FORMS}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OLLAMA_BASEURL", "OLLAMA_BASE_URL"),
        ("OLLAMA_URL", "OLLAMA_BASE_URL"),
        ("TTS_VOISE", "TTS_VOICE"),
        ("SD_ENABLE", "SD_ENABLED"),
        ("SSL_CAFILE", "SSL_CA_FILE"),
        ("openai_basurl", "OPENAI_BASE_URL"),
        ("OLLAMA_HOST", None),
        ("OLLAMA_MODELS", None),
        ("OLLAMA_TOKEN_FILE", None),
        ("OPENAI_ORGANIZATION", None),
        ("SSL_CERT_FILE", None),
        ("OLLAMA_BASE_URL", None),
        ("SHELL", None),
    ],
)
def test_a_servers_name_that_is_nearly_one_of_ours_is_told_and_no_fault(
    tmp_path: Path, name: str, meant: str | None
) -> None:
    expected = [(name, meant)] if meant else []
    assert list(misspelt({name: "http://gpu:11434"})) == expected
    (tmp_path / ".env").write_text(f"{name}=http://gpu:11434\n")
    if name not in FIELDS:
        assert list(misspelt({})) == expected


def test_files_that_a_start_needs_must_be_there(tmp_path: Path) -> None:
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.touch()
    names = ("SSL_CA_FILE", "TOPICD_LLM_FILE", "TOPICD_VOICE_FILE")
    check_files(loaded(**dict.fromkeys(names, str(here))))
    for name in names:
        with pytest.raises(Unusable, match=f"{name}={gone}: there is no such file"):
            check_files(loaded(**{name: str(gone)}))
    unneeded = {"TOPICD_LLM_FILE": str(gone), "OLLAMA_BASE_URL": "http://gpu"}
    check_files(loaded(**unneeded, TOPICD_VOICE_FILE=str(gone), TTS_BASE_URL="http://gpu"))


def test_the_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().scenes = 3  # type: ignore[misc]


def test_without_anything_set_the_defaults_hold() -> None:
    settings = load()
    assert settings.input_path == Path("input")
    assert settings.output_path == Path("output")
    assert not settings.model_fields_set


def test_an_empty_path_is_none() -> None:
    settings = loaded(TOPICD_INPUT_DIR="", TOPICD_OUTPUT_DIR="/elsewhere", TOPICD_LLM_FILE="", SSL_CA_FILE="")
    assert (settings.input_dir, settings.llm_file, settings.ssl_ca_file) == (None, None, None)
    assert settings.output_path == Path("/elsewhere")


SECRET = "s3cr3t-pa55"  # noqa: S105 - it is looked for


@pytest.mark.parametrize("variable", ["OLLAMA_BASE_URL", "TTS_BASE_URL", "SD_BASE_URL"])
@pytest.mark.parametrize(
    "value",
    [
        f"htp://joe:{SECRET}@gpu:11434",
        f"joe:{SECRET}@gpu:11434",
        f"htp://joe:{SECRET}/word@gpu",
        f"http:// joe:{SECRET}@gpu",
        f"//joe:{SECRET}@gpu",
        f"https:/joe:{SECRET}@gpu",
        f"gpu:11434/?token={SECRET}",
        f"http://joe:{SECRET}",
        f"http://joe:{SECRET}/x",
    ],
)
def test_a_wrong_address_does_not_tell_its_password(variable: str, value: str) -> None:
    told = refused(**{variable: value})
    assert variable in told
    assert SECRET not in told


def test_a_misspelt_name_does_not_tell_its_value() -> None:
    assert SECRET not in refused(TOPICD_OLLAMA_BASE_URL=f"http://joe:{SECRET}@gpu")


def test_a_long_wrong_value_is_cut() -> None:
    assert len(refused(TOPICD_LANGUAGE="x" * 100_000)) < 1000


@pytest.mark.parametrize("value", ["en\x1b[31m", "en\nTOPICD_FAKE: fine"])
def test_a_wrong_value_is_shown_on_one_line(value: str) -> None:
    told = refused(TOPICD_LANGUAGE=value)
    assert "\x1b" not in told
    assert len(told.splitlines()) == 1


def test_the_example_is_what_the_code_says() -> None:
    assert (REPOSITORY / ".env.example").read_text() == example()


def test_the_example_uncommented_is_the_defaults(tmp_path: Path) -> None:
    lines = [re.sub(r"^#(?=[A-Z_]+=)", "", line) for line in example().splitlines()]
    (tmp_path / ".env").write_text("\n".join(lines))
    settings = load()
    assert settings.model_fields_set == set(FIELDS)
    assert settings.model_dump() == Settings.model_construct().model_dump()


SECRETS = sorted(env_name(name, info) for name, info in FIELDS.items() if is_secret(info))
TOKENS = [name for name in SECRETS if not name.endswith("_HEADERS")]
HEADERS = [name for name in SECRETS if name.endswith("_HEADERS")]


def value_of(settings: Settings, variable: str) -> object:
    return getattr(settings, next(name for name, info in FIELDS.items() if env_name(name, info) == variable))


def test_tokens_and_headers_are_secrets() -> None:
    assert len(TOKENS) == len(HEADERS) == 4
    assert {name for name in OWNERS if re.search("TOKEN$|KEY$|HEADERS$|PASSWORD", name)} == set(SECRETS)


@pytest.mark.parametrize("variable", SECRETS)
def test_a_secret_comes_from_a_file_of_its_own(variable: str, tmp_path: Path) -> None:
    secret = f'{{"X-Key": "{SECRET}"}}' if variable in HEADERS else SECRET
    (tmp_path / "secret").write_text(f"{secret}\n")
    settings = loaded(**{f"{variable}_FILE": f"{tmp_path}/secret"})
    assert value_of(settings, variable) == SecretStr(secret)
    assert SECRET not in repr(settings)
    (tmp_path / ".env").write_text(f"{variable}_FILE={tmp_path}/secret\n")
    assert value_of(load(), variable) == SecretStr(secret)


@pytest.mark.parametrize("name", ["OLLAMA_TOKEN", "ollama_token"])
def test_a_secret_comes_from_systemds_credentials(name: str, tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / name).write_text(f"{SECRET}\n")
    settings = loaded(CREDENTIALS_DIRECTORY=f"{tmp_path}/credentials")
    assert settings.ollama_token.get_secret_value() == SECRET


def test_a_credential_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "OLLAMA_TOKEN").write_bytes(b"\xff\xfe")
    with pytest.raises(Unusable, match=r"ollama_token(?s:.*)decode"):
        loaded(CREDENTIALS_DIRECTORY=f"{tmp_path}")


def test_the_strongest_source_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TTS_TOKEN=from-dotenv\nSD_TOKEN=from-dotenv\nOLLAMA_TOKEN=from-dotenv\n")
    (tmp_path / "file").write_text("from-file")
    (tmp_path / "TTS_TOKEN").write_text("from-credential")
    (tmp_path / "OPENAI_API_KEY").write_text("from-credential")
    settings = loaded(
        OLLAMA_TOKEN="from-environment",  # noqa: S106 - as above
        OPENAI_API_KEY_FILE=f"{tmp_path}/file",
        CREDENTIALS_DIRECTORY=f"{tmp_path}",
    )
    found = [settings.ollama_token, settings.openai_api_key, settings.tts_token, settings.sd_token]
    assert [each.get_secret_value().removeprefix("from-") for each in found] == [
        "environment",
        "file",
        "credential",
        "dotenv",
    ]


def test_a_secret_that_is_set_twice_is_told() -> None:
    told = refused(OLLAMA_TOKEN=SECRET, OLLAMA_TOKEN_FILE="/nowhere")  # noqa: S106 - a path
    assert told == "OLLAMA_TOKEN and OLLAMA_TOKEN_FILE: set one of them"


def test_a_secrets_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    told = refused(SD_TOKEN_FILE="/nowhere/x")  # noqa: S106 - as above
    assert told == "SD_TOKEN_FILE=/nowhere/x: cannot be read (No such file or directory)"
    (tmp_path / "large").write_text(SECRET * 10_000)
    assert "larger than" in refused(SD_TOKEN_FILE=f"{tmp_path}/large")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert "UTF-8" in refused(SD_TOKEN_FILE=f"{tmp_path}/bytes")


@pytest.mark.parametrize("variable", SECRETS)
@pytest.mark.parametrize("value", [f"{SECRET}\n{SECRET}", f"{SECRET}é", f'{{"a b": "{SECRET}"}}é', SECRET * 10_000])
def test_a_wrong_secret_is_not_told(variable: str, value: str) -> None:
    told = refused(**{variable: value})
    assert told.startswith(f"{variable}: ")
    assert SECRET not in told


@pytest.mark.parametrize("value", ["[]", '{"X": 1}', '{"X Y": "z"}', '{"": "z"}', '{"X": "a\\nb"}', "X: y", "{"])
def test_headers_are_a_json_object_of_words(value: str) -> None:
    assert "OLLAMA_HEADERS: write headers as" in refused(OLLAMA_HEADERS=value)


def test_headers_are_read() -> None:
    settings = loaded(OLLAMA_HEADERS='{"X-Key": "a, b", "CF-Access-Client-Id": "c=d"}')
    assert headers_of(settings.ollama_headers) == {"X-Key": "a, b", "CF-Access-Client-Id": "c=d"}
    assert headers_of(Settings().ollama_headers) == {}


def test_several_addresses_are_a_list() -> None:
    settings = loaded(OLLAMA_BASE_URL="http://a:11434, http://b:11434,", TTS_BASE_URL="https://t")
    assert settings.ollama_base_url == ("http://a:11434", "http://b:11434")
    assert settings.tts_base_url == ("https://t",)
    assert "OLLAMA_BASE_URL='b:1'" in refused(OLLAMA_BASE_URL="http://a:11434,b:1")
    assert "OLLAMA_BASE_URL" in refused(OLLAMA_BASE_URL=",".join(f"http://h{number}" for number in range(17)))


def test_voices_are_a_map() -> None:
    assert loaded(TTS_VOICES="en=joe, pt-BR = faber,").tts_voices == {"en": "joe", "pt-BR": "faber"}
    assert loaded(TTS_VOICES="").tts_voices == {}
    for wrong in ("joe", "en=", "=joe", "english!=joe"):
        assert "TTS_VOICES" in refused(TTS_VOICES=wrong)


@pytest.mark.parametrize("value", ["", "10/min", "1/s", "9999/d", "5 / h"])
def test_every_rate_that_may_be_set_is_one(value: str) -> None:
    rate = loaded(OLLAMA_RATE=value).ollama_rate
    assert not rate or Rate.parse(rate).calls >= 1


@pytest.mark.parametrize("value", ["0/min", "10", "10/minute", "min", "-1/s", "1.5/s", "99999/s"])
def test_what_is_no_rate_is_told(value: str) -> None:
    assert f"OLLAMA_RATE='{value}'" in refused(OLLAMA_RATE=value)


UNITS = {"_s": "second", "_bytes_max": "bytes", "_bytes": "bytes", "_px": "pixels", "_port": "port"}


@pytest.mark.parametrize(("name", "info"), FIELDS.items(), ids=FIELDS)
def test_each_description_names_its_unit_or_needs_none(name: str, info: FieldInfo) -> None:
    text = info.description or ""
    unit = next((word for ending, word in UNITS.items() if name.endswith(ending)), "")
    assert unit in text
    assert text == text.strip()
    assert "\n" not in text
    assert 0 < len(text) <= 100
    if info.annotation in (int, float) and not unit:
        assert re.search(r"jobs|attempts|times|scenes|tokens|calls|steps|predictable|closely", text)


def test_each_setting_is_read_somewhere() -> None:
    folder = Path(topicd.settings.__file__).parent
    text = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "settings_servers.py")
    indirect = {"input_dir", "output_dir", "prompts_dir"}
    assert {name for name in FIELDS if f"settings.{name}" not in text and name not in indirect} == set()
