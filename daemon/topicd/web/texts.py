"""The page's words, in English and in Portuguese, and how each writes numbers and times.

Owns every sentence that the page itself says; a job's own words are in its own language, and what the daemon says of a
fault is in English, and in Portuguese from `causes.py`. Promises both languages for each.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from topicd.web.causes import BUSY, KINDS, NOTES, PORTUGUESE, WARNINGS

LANGUAGES: Final = ("en", "pt")

# English, then Portuguese.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "other_language": ("Português", "English"),
    "skip": ("Skip to content", "Ir para o conteúdo"),
    "overview": ("Overview", "Visão geral"),
    "gallery": ("Gallery", "Galeria"),
    "live": ("live", "ao vivo"),
    "stale": ("Not connected: this is as it was.", "Sem conexão: estes dados são de antes."),
    "version": ("topicd {version}", "topicd {version}"),
    # the headline
    "at_rest": ("Nothing to do", "Nada a fazer"),
    "working_one": ("1 job in work", "1 tarefa em andamento"),
    "working_many": ("{n} jobs in work", "{n} tarefas em andamento"),
    "waiting_one": ("1 job waiting", "1 tarefa na fila"),
    "waiting_many": ("{n} jobs waiting", "{n} tarefas na fila"),
    "plus_waiting": ("{working}, {n} waiting", "{working}, {n} na fila"),
    "waits_disk": ("Waiting for the disk", "À espera do disco"),
    "waits_scripts": ("Waiting for the scripts' backend", "À espera do backend dos roteiros"),
    "waits_audio": ("Waiting for the audio's backend", "À espera do backend do áudio"),
    "waits_images": ("Waiting for the images' backend", "À espera do backend das imagens"),
    "waits_other": ("Waiting until topicd is ready", "À espera de que o topicd fique pronto"),
    "to_take_one": ("1 topic to be taken", "1 tópico para ser aceito"),
    "to_take_many": ("{n} topics to be taken", "{n} tópicos para serem aceitos"),
    "not_ready": ("Not ready", "Não está pronto"),
    "ready": ("Ready", "Pronto"),
    "why": ("What is wrong", "O que há de errado"),
    "warnings": ("Warnings", "Avisos"),
    "invite": ("Drop a topic file into {folder} to begin.", "Coloque um arquivo de tópico em {folder} para começar."),
    # tiles
    "now": ("At a glance", "Em resumo"),
    "finished": ("Finished", "Prontas"),
    "failed": ("Failed", "Com falha"),
    "held": ("Held", "Retidas"),
    "input": ("Dropped", "Na entrada"),
    "disk": ("Free disk", "Disco livre"),
    "last_hour": ("Last hour", "Última hora"),
    "since_start": ("Since the start", "Desde o início"),
    "hour": ("{done} finished, {units} units", "{done} prontas, {units} unidades"),
    "hour_bars": ("Units made a minute, over the last hour", "Unidades por minuto na última hora"),
    # stages and states
    "scripts": ("Scripts", "Roteiros"),
    "audio": ("Audio", "Áudio"),
    "images": ("Images", "Imagens"),
    "output": ("Finished", "Prontas"),
    "working": ("in work", "em andamento"),
    "waiting": ("waiting", "na fila"),
    "deferred": ("put off", "adiada"),
    "damaged": ("damaged", "danificada"),
    "done": ("finished", "pronta"),
    "state_failed": ("failed", "com falha"),
    "state_held": ("held", "retida"),
    "to_come": ("to come", "a seguir"),
    "scripts_done": ("finished", "prontos"),
    "audio_done": ("finished", "pronto"),
    "images_done": ("finished", "prontas"),
    "stage_held": ("held", "em pausa"),
    "stage_deferred": ("put off", "para mais tarde"),
    "stage_damaged": ("damaged", "com defeito"),
    "unit_script": ("script", "roteiro"),
    "unit_page": ("page", "página"),
    "lane_count": ("{working} in work, {waiting} waiting", "{working} em andamento, {waiting} na fila"),
    "by": ("by {maker}", "por {maker}"),
    "units": ("{n} of {of}", "{n} de {of}"),
    "progress_of": ("{name}: units made", "{name}: unidades feitas"),
    "left": ("about {time} left", "faltam cerca de {time}"),
    "left_little": ("a few seconds left", "faltam alguns segundos"),
    "more": ("and {n} more", "e mais {n}"),
    "lane_empty": ("Nothing here.", "Nada aqui."),
    # troubles
    "errors": ("Last failures", "Últimas falhas"),
    "no_errors": ("Nothing has failed.", "Nada falhou."),
    "held_jobs": ("Held jobs", "Tarefas retidas"),
    "hint": ("What to do", "O que fazer"),
    "next_try": ("Next try", "Próxima tentativa"),
    "retry": ("To try it again:", "Para tentar de novo:"),
    "release": ("To let it go on:", "Para deixá-la continuar:"),
    "hold": ("To put it aside:", "Para deixá-la de lado:"),
    "run_in": ("Run it in {folder}.", "Execute em {folder}."),
    "copy": ("Copy", "Copiar"),
    "copied": ("Copied", "Copiado"),
    # servers and the house
    "servers": ("Servers", "Servidores"),
    "no_servers": ("None: everything runs on this machine.", "Nenhum: tudo roda nesta máquina."),
    "calls": ("{calls} under way, {waiting} waiting", "{calls} em andamento, {waiting} na fila"),
    "waited": ("waited {time} for the rate limit", "esperou {time} pelo limite de taxa"),
    "closed": ("well", "ok"),
    "open": ("away", "fora do ar"),
    "half-open": ("being tried", "em teste"),
    "since": ("since", "desde"),
    "downloads": ("Being fetched", "Sendo baixados"),
    "input_dir": ("Input", "Entrada"),
    "input_waiting": ("{n} dropped, not yet taken", "{n} ainda não aceitos"),
    "ignored": ("left alone: {kind}", "ignorado: {kind}"),
    "watching": ("Watched by {mode}", "Observada por {mode}"),
    "events": ("file events", "eventos de arquivo"),
    "poll": ("looking now and then", "consultas periódicas"),
    # a job
    "steps": ("Where it stands", "Onde está"),
    "history": ("History", "Histórico"),
    "job": ("Job", "Tarefa"),
    "place": ("Place", "Lugar"),
    "source": ("Topic file", "Arquivo do tópico"),
    "accepted": ("Accepted", "Aceita"),
    "attempts_one": ("1 failed attempt", "1 tentativa com erro"),
    "attempts_many": ("{n} failed attempts", "{n} tentativas com erro"),
    "crashes_one": ("cut off once", "interrompida uma vez"),
    "crashes_many": ("cut off {n} times", "interrompida {n} vezes"),
    "took": ("{time} of work", "{time} de trabalho"),
    "trouble": ("Trouble", "Problema"),
    "listen": ("Listen", "Ouvir"),
    "captions": ("Captions", "Legendas"),
    "script": ("Script and pictures", "Roteiro e imagens"),
    "scene": ("Scene {n}", "Cena {n}"),
    "scenes_one": ("1 scene", "1 cena"),
    "scenes_many": ("{n} scenes", "{n} cenas"),
    "picture": ("Picture {n}", "Imagem {n}"),
    "save": ("Save", "Salvar"),
    "save_page": ("Page", "Página"),
    "save_audio": ("Audio", "Áudio"),
    "save_captions": ("Captions", "Legendas"),
    "save_script": ("Script", "Roteiro"),
    "files": ("Files, and how they were made", "Arquivos e como foram feitos"),
    "file": ("File", "Arquivo"),
    "size": ("Size", "Tamanho"),
    "made_by": ("Made by", "Feito por"),
    "seconds": ("Time", "Tempo"),
    "made_at": ("Made", "Feito em"),
    "draft": ("draft", "rascunho"),
    "draft_note": (
        "What the topic does not say itself comes from a very small language model: check it.",
        "O que o próprio tópico não diz vem de um modelo de linguagem muito pequeno: confira.",
    ),
    "digests": (
        "The SHA-256 hash and the source of each are in {file}.",
        "O hash SHA-256 e a origem de cada um estão em {file}.",
    ),
    # the gallery
    "gallery_empty": ("Nothing is finished yet.", "Nada está pronto ainda."),
    "gallery_one": ("1 finished folder", "1 pasta pronta"),
    "gallery_many": ("{n} finished folders", "{n} pastas prontas"),
    "newer": ("Newer", "Mais novas"),
    "older": ("Older", "Mais antigas"),
    "page": ("Page {n} of {of}", "Página {n} de {of}"),
    # faults of the page itself
    "not_found": ("There is no such page.", "Esta página não existe."),
    "no_job": ("There is no such job.", "Esta tarefa não existe."),
    "this_minute": ("this minute", "neste minuto"),
    "no_disk": ("The disk does not answer.", "O disco não responde."),
    "back": ("To the overview", "Ir para a visão geral"),
}
_TAG: Final = re.compile(r"\s*([a-zA-Z]+)[^,;]*(?:;\s*q=([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*)?\Z")
_HEADER_CHARS_MAX: Final = 200
_UNITS: Final = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_MINUTE_S: Final = 60
_FEW_S: Final = 8
_TENS_UNTIL_S: Final = 100


class Words:
    """The page's words in one language.

    Args:
        language: of `LANGUAGES`; the first where it is none.
        asked: whether it was asked for by address, so that links go on asking for it.
    """

    def __init__(self, language: str, *, asked: bool = False) -> None:
        self.language: Final = language if language in LANGUAGES else LANGUAGES[0]
        self._asked = asked
        self._place = LANGUAGES.index(self.language)

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence; a key that is none is itself."""
        words = _WORDS.get(key, (key, key))[self._place]
        return words.format_map(values) if values else words

    def many(self, key: str, n: int) -> str:
        """Return the sentence of a key for one or for many."""
        return self(f"{key}_one") if n == 1 else self(f"{key}_many", n=self.number(n))

    def unit(self, unit: str) -> str:
        """Return what a unit is called; most are the names of files."""
        names = {"script": self("unit_script"), "page": self("unit_page")}
        return names.get(unit, unit)

    def link(self, path: str, **query: object) -> str:
        """Return an address here, with the language where it was asked for."""
        asked = {**query, **({"lang": self.language} if self._asked else {})}
        return f"{path}{'&' if '?' in path else '?'}{urlencode(asked)}" if asked else path

    def number(self, value: float, digits: int = 0) -> str:
        """Return a number, its thousands parted."""
        text = f"{value:,.{digits}f}"
        return text.translate(str.maketrans(",.", ".,")) if self.language == "pt" else text

    def fault(self, cause: str) -> tuple[str, str]:
        """Return a fault and what to do, for a cause; both empty where the daemon's own words must do."""
        return PORTUGUESE.get(cause, ("", "")) if self.language == "pt" else ("", "")

    def kind(self, kind: str) -> str:
        """Return what a kind of file that is left alone is called."""
        return KINDS.get(kind, kind) if self.language == "pt" else kind

    def note(self, note: str) -> str:
        """Return what a server or a download is busy with; empty where the daemon's own words must do."""
        first, _, rest = note.partition(" ")
        if self.language != "pt":
            return ""
        return f"{BUSY[first]} {rest}" if first in BUSY else NOTES.get(note, "")

    def warning(self, warning: str) -> str:
        """Return what the settings are warned of; empty where the daemon's own words must do."""
        if self.language != "pt":
            return ""
        found = ((words, pattern.fullmatch(warning)) for pattern, words in WARNINGS)
        return next((match.expand(words) for words, match in found if match), "")

    def size(self, count: float) -> str:
        """Return a number of bytes."""
        for unit, factor in _UNITS:
            if count >= factor:
                return f"{self.number(count / factor, 1)} {unit}"
        return f"{self.number(count)} B"

    def span(self, seconds: float) -> str:
        """Return a length of time."""
        if seconds < _FEW_S:
            return f"{self.number(seconds, 1)} s"
        if seconds < _TENS_UNTIL_S:
            return f"{seconds:.0f} s"
        hours, minutes = divmod(round(seconds / _MINUTE_S), 60)
        return f"{hours} h {minutes} min" if hours else f"{minutes} min"

    def left(self, seconds: float) -> str:
        """Return how long it takes still, no more exact than it is known."""
        if seconds < _FEW_S:
            return self("left_little")
        return self("left", time=self.span(10 * round(seconds / 10) or 10 if seconds < _TENS_UNTIL_S else seconds))

    @property
    def tag(self) -> str:
        """Return the language's tag for the page."""
        return {"pt": "pt-BR"}.get(self.language, self.language)


def chosen(query: str, accepted: str) -> Words:
    """Return the words of the language that is asked for (`lang=`), or that the browser prefers (RFC 9110, 12.5.4)."""
    if query in LANGUAGES:
        return Words(query, asked=True)
    wishes = [_TAG.match(each) for each in accepted[:_HEADER_CHARS_MAX].split(",")]
    known = [(-float(wish[2] or 1), wish[1].lower()) for wish in wishes if wish and wish[1].lower() in LANGUAGES]
    return Words(min(known, key=lambda wish: wish[0])[1] if known else LANGUAGES[0])
