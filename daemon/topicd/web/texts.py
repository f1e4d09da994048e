"""The page's words, in English and in Portuguese.

Owns every sentence that the page itself says; a job's own words are in its own language. Promises both languages for
each. Never formats a number or a date of its own accord.
"""

import re
from collections.abc import Mapping
from typing import Final

LANGUAGES: Final = ("en", "pt")

# English, then Portuguese.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "overview": ("Overview", "Visão geral"),
    "gallery": ("Finished", "Prontos"),
    "scripts": ("Scripts", "Roteiros"),
    "audio": ("Audio", "Áudio"),
    "images": ("Images", "Imagens"),
    "failed": ("Failed", "Com falha"),
    "held": ("Held", "Retidos"),
    "output": ("Finished", "Prontos"),
    "working": ("in work", "em andamento"),
    "waiting": ("waiting", "esperando"),
    "deferred": ("put off", "adiado"),
    "damaged": ("damaged", "danificado"),
    "done": ("finished", "pronto"),
    "units": ("{n} of {of}", "{n} de {of}"),
    "left": ("about {time} left", "faltam cerca de {time}"),
    "nothing": ("Nothing here.", "Nada aqui."),
    "more": ("and {n} more", "e mais {n}"),
    "drop": ("Drop a topic into {folder}.", "Coloque um tema em {folder}."),
    "input": ("Dropped, not yet taken", "Entregues, ainda não aceitos"),
    "ignored": ("left alone: {kind}", "ignorado: {kind}"),
    "servers": ("Servers", "Servidores"),
    "no_servers": ("None: everything runs in this machine.", "Nenhum: tudo roda nesta máquina."),
    "calls": ("{calls} under way, {waiting} waiting", "{calls} em andamento, {waiting} na fila"),
    "closed": ("well", "bem"),
    "open": ("away", "fora do ar"),
    "half-open": ("being tried", "em teste"),
    "since": ("since {time}", "desde {time}"),
    "downloads": ("Being fetched", "Sendo baixados"),
    "disk": ("Free disk space", "Espaço livre em disco"),
    "errors": ("Last failures", "Últimas falhas"),
    "hint": ("What to do", "O que fazer"),
    "next_try": ("next try {time}", "próxima tentativa {time}"),
    "ready": ("Ready", "Pronto"),
    "not_ready": ("Not ready", "Não está pronto"),
    "live": ("live", "ao vivo"),
    "stale": ("Not connected; this is as it was.", "Sem conexão; isto é como estava."),
    "retry": ("To try it again:", "Para tentar de novo:"),
    "release": ("To let it go on:", "Para deixá-lo continuar:"),
    "history": ("History", "Histórico"),
    "place": ("Place", "Lugar"),
    "source": ("Topic file", "Arquivo do tema"),
    "accepted": ("Accepted", "Aceito"),
    "attempts": ("Attempts", "Tentativas"),
    "crashes": ("Cut off", "Interrompido"),
    "seconds": ("Seconds of work", "Segundos de trabalho"),
    "error": ("Trouble", "Problema"),
    "listen": ("Listen", "Ouvir"),
    "script": ("Script", "Roteiro"),
    "pictures": ("Pictures", "Imagens"),
    "picture_of": ("Picture {n}: {words}", "Imagem {n}: {words}"),
    "title_picture": ("Title picture", "Imagem do título"),
    "files": ("Files and how they were made", "Arquivos e como foram feitos"),
    "file": ("File", "Arquivo"),
    "size": ("Size", "Tamanho"),
    "made_by": ("Made by", "Feito por"),
    "captions": ("Captions", "Legendas"),
    "newer": ("Newer", "Mais novos"),
    "older": ("Older", "Mais antigos"),
    "page": ("Page {n} of {of}", "Página {n} de {of}"),
    "skip": ("Skip to content", "Ir para o conteúdo"),
    "not_found": ("There is no such page.", "Esta página não existe."),
    "no_job": ("There is no such job.", "Este trabalho não existe."),
    "back": ("Back to the overview", "Voltar à visão geral"),
    "warnings": ("Warnings", "Avisos"),
    "other_language": ("Português", "English"),
}
_TAG: Final = re.compile(r"\s*([a-zA-Z]+)[^,;]*(?:;\s*q=([0-9.]+))?")


class Words:
    """The page's words in one language."""

    def __init__(self, language: str) -> None:
        self.language: Final = language if language in LANGUAGES else LANGUAGES[0]
        self._place = LANGUAGES.index(self.language)

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence; a key that is none is itself."""
        words = _WORDS.get(key, (key, key))[self._place]
        return words.format_map(values) if values else words

    @property
    def tag(self) -> str:
        """Return the language's tag for the page."""
        return {"pt": "pt-BR"}.get(self.language, self.language)


def chosen(query: str, accepted: str) -> Words:
    """Return the words of the language that is asked for (`lang=`), or that the browser prefers (RFC 9110, 12.5.4)."""
    if query in LANGUAGES:
        return Words(query)
    wishes = [
        (float(found[2] or 1), found[1].lower()) for each in accepted[:200].split(",")[:20] if (found := _wish(each))
    ]
    known = [wish for wish in sorted(wishes, key=lambda wish: -wish[0]) if wish[1] in LANGUAGES]
    return Words(known[0][1] if known else LANGUAGES[0])


def _wish(text: str) -> "re.Match[str] | None":
    found = _TAG.match(text)
    return found if found and (found[2] or "1").count(".") <= 1 and (found[2] or "1") != "." else None
