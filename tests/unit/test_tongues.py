import pytest

from topicd.backends.embedded.tongues import tongue
from topicd.stages.scripts import voice_of


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Por que o céu é azul?", "pt-BR"),
        ("Como fazer pão", "pt-BR"),
        ("A história do Brasil\n\n- O café chegou em 1727.\n- Os trens vieram por causa dele.", "pt-BR"),
        ("Por qué el cielo es azul", "es"),
        ("Pourquoi le ciel est bleu", "fr"),
        ("Warum ist der Himmel blau?", "de"),
        ("Perché il cielo è blu", "it"),
        ("Why the sky is blue", ""),
        ("Tides", ""),
        ("São Paulo", ""),
        ("Beyoncé", ""),
        ("Café culture in the city of Lisbon", ""),
        ("Los Angeles", ""),
        ("What 'déjà vu' is, and why we say que sera sera", ""),
        ("空はなぜ青いのか", ""),
        ("", ""),
    ],
)
def test_a_language_is_told_where_it_is_sure(text: str, tag: str) -> None:
    assert tongue(text)[0] == tag


@pytest.mark.parametrize(
    ("language", "voice"),
    [
        ("pt-BR", "faber"),
        ("pt", "faber"),
        ("pt-PT", "faber"),
        ("PT-br", "faber"),
        ("en", "alan"),
        ("en-GB", "alan"),
        ("fr", ""),
    ],
)
def test_a_kind_of_a_language_has_the_voice_of_another(language: str, voice: str) -> None:
    assert voice_of(language, {"pt-BR": "faber", "en-GB": "alan"}) == voice
