"""The finished job's page: one HTML file that plays the narration with its pictures and captions in step.

Owns what goes into `index.html`; how it looks and plays is in `page.html` beside this file. Promises a page
that needs nothing but itself (audio and pictures are data: URIs, the policy in its head allows no request),
shows every text as text whatever is in it, and has the same bytes for the same inputs. Never writes a file.

Memory: base64 makes four bytes of three, and the page is held twice while its parts are joined: at most about
twice `PAGE_BYTES_MAX`, which is some 27 minutes of speech at 22,050 samples a second.
"""

import base64
import hashlib
import html
import io
import json
import re
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from topicd.errors import Rejected, StorageTrouble
from topicd.stages.captions import Cue

PAGE_BYTES_MAX: Final = 96 * 1024**2
PICTURE_BYTES_MAX: Final = 64 * 1024**2
PICTURE_PIXELS_MAX: Final = 50_000_000
PICTURE_SIDE_PX_MAX: Final = 1280
TITLE_S_MIN: Final = 2.0

_WEBP_QUALITY: Final = 88
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "captions": "Captions",
        "controls": "Playback",
        "full_screen": "Full screen",
        "job": "job",
        "made": "Made",
        "mute": "Mute",
        "next": "Next scene",
        "pause": "Pause",
        "play": "Play",
        "play_pause": "play or pause",
        "player": "Player",
        "previous": "Previous scene",
        "scene": "Scene {n}",
        "scene_of": "Scene {n} of {total}",
        "scenes_many": "{n} scenes",
        "scenes_one": "1 scene",
        "seek": "Position",
        "seek_more_s": "by 10 s",
        "seek_s": "back or on by 5 s",
        "space": "space",
        "speed": "Speed",
        "transcript": "Transcript",
        "trouble": "This browser cannot play the narration. The transcript and the pictures are below.",
        "volume": "Volume",
    },
    "pt": {
        "captions": "Legendas",
        "controls": "Reprodução",
        "full_screen": "Tela cheia",
        "job": "tarefa",
        "made": "Feito em",
        "mute": "Silenciar",
        "next": "Próxima cena",
        "pause": "Pausar",
        "play": "Reproduzir",
        "play_pause": "reproduzir ou pausar",
        "player": "Reprodutor",
        "previous": "Cena anterior",
        "scene": "Cena {n}",
        "scene_of": "Cena {n} de {total}",
        "scenes_many": "{n} cenas",
        "scenes_one": "1 cena",
        "seek": "Posição",
        "seek_more_s": "10 s",
        "seek_s": "voltar ou avançar 5 s",
        "space": "espaço",
        "speed": "Velocidade",
        "transcript": "Transcrição",
        "trouble": "Este navegador não consegue reproduzir a narração. O texto e as imagens estão abaixo.",
        "volume": "Volume",
    },
}
_SCRIPT_WORDS: Final = ("pause", "play", "scene_of", "trouble")


@dataclass(frozen=True, slots=True)
class PageScene:
    """One scene as the page shows it.

    Attributes:
        picture: image file, anything Pillow reads.
        narration: what is spoken.
        start_s: where it starts in the audio, seconds.
        alt: what the picture shows, in words; empty for the scene's number.
    """

    picture: Path
    narration: str
    start_s: float
    alt: str = ""


def build_page(
    *,
    title: str,
    language: str,
    job: str,
    made: str,
    scenes: Sequence[PageScene],
    title_picture: Path,
    audio: Path,
    cues: Sequence[Cue],
    notes: Sequence[str],
) -> bytes:
    """Return the page of a finished job, UTF-8. Reading and re-encoding takes some 0.1 s a picture.

    Args:
        title: the script's title.
        language: BCP 47 tag of the narration; the page's own words are English where unknown in it.
        job: the job's id.
        made: when it was made, in words for a person.
        scenes: in order, at least one.
        title_picture: shown until the first scene starts, and for two seconds at least.
        audio: the joined narration, WAV PCM; embedded as it is.
        cues: the captions, ascending.
        notes: what a viewer ought to know, a sentence each; may be empty.

    Raises:
        Rejected: a file is missing or damaged, or the page would be larger than `PAGE_BYTES_MAX`.
        StorageTrouble: a file cannot be read.
        ValueError: there are no scenes, or a time is not finite.
    """
    if not scenes:
        raise ValueError("a page needs at least one scene")
    page_language, words = _words(language)
    language = language if _LANGUAGE.fullmatch(language) else "und"
    duration_s = _duration_s(audio)
    template = resources.files("topicd.stages").joinpath("page.html").read_bytes()
    values = {name: _text(word) for name, word in words.items()} | {
        "audio": base64.b64encode(_read(audio, bytes_max=PAGE_BYTES_MAX // 4 * 3)),
        "data": _data(words, [scene.start_s for scene in scenes], cues),
        "duration": _text(_clock(duration_s)),
        "duration_s": _text(f"{duration_s:.3f}"),
        "facts": _text(f"{_count(words, len(scenes))} · {_clock(duration_s)}"),
        "keys": _keys(words),
        "language": _text(language),
        "made": _text(f"{words['made']} {made} · {words['job']} {job}"),
        "notes": b"".join(b"<p>%s</p>" % _text(note) for note in notes),
        "page_language": _text(page_language),
        "scenes": b"\n".join(_scene(words, language, n, each) for n, each in enumerate(scenes, 1)),
        "script_hash": _hash(template, b"script"),
        "style_hash": _hash(template, b"style"),
        "title": _text(title),
        "title_picture": _picture_uri(title_picture),
    }
    page = _fill(template, values)
    if len(page) > PAGE_BYTES_MAX:
        raise _too_large("the page", len(page), PAGE_BYTES_MAX)
    return page


def _words(language: str) -> tuple[str, Mapping[str, str]]:
    primary = language.partition("-")[0].lower()
    return (language, _WORDS[primary]) if primary in _WORDS else ("en", _WORDS["en"])


def _fill(template: bytes, values: Mapping[str, bytes]) -> bytes:
    parts = re.split(rb"\{\{(\w+)\}\}", template)
    parts[1::2] = [values[name.decode()] for name in parts[1::2]]
    return b"".join(parts)


def _hash(template: bytes, element: bytes) -> bytes:
    inline = template.partition(b"<%s>" % element)[2].partition(b"</%s>" % element)[0]
    return b"sha256-" + base64.b64encode(hashlib.sha256(inline).digest())


def _text(text: str) -> bytes:
    return html.escape(_UNPRINTABLE.sub("\ufffd", text)).encode()


def _data(words: Mapping[str, str], starts_s: Sequence[float], cues: Sequence[Cue]) -> bytes:
    data = {
        "cues": [[cue.start_s, cue.end_s, cue.text] for cue in cues],
        "starts": starts_s,
        "title_until_s": min([max(starts_s[0], TITLE_S_MIN), *starts_s[1:2]]),
        "words": {name: words[name] for name in _SCRIPT_WORDS},
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").encode()


def _scene(words: Mapping[str, str], language: str, number: int, scene: PageScene) -> bytes:
    name = words["scene"].format(n=number)
    return b"".join(
        (
            b'<li class="scene"><img src="%s" alt="' % _picture_uri(scene.picture),
            b'%s" decoding="async"><button class="jump" type="button" disabled>' % _text(scene.alt or name),
            b"<b>%s</b> %s</button>" % (_text(name), _text(_clock(scene.start_s))),
            b'<p lang="%s" dir="auto">%s</p></li>' % (_text(language), _text(scene.narration)),
        )
    )


def _keys(words: Mapping[str, str]) -> bytes:
    hints = [
        (f"{words['space']} k", "play_pause"),
        ("← →", "seek_s"),
        ("j l", "seek_more_s"),
        ("c", "captions"),
        ("m", "mute"),
        ("f", "full_screen"),
    ]
    return " ".join(f"<span>{_kbd(keys)} {html.escape(words[hint].lower())}</span>" for keys, hint in hints).encode()


def _kbd(keys: str) -> str:
    return " ".join(f"<kbd>{html.escape(key)}</kbd>" for key in keys.split())


def _count(words: Mapping[str, str], scenes: int) -> str:
    return words["scenes_one" if scenes == 1 else "scenes_many"].format(n=scenes)


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(int(time_s + 1e-3), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _duration_s(audio: Path) -> float:
    try:
        with wave.open(str(audio), "rb") as sound:
            return sound.getnframes() / sound.getframerate()
    except FileNotFoundError as error:
        raise _missing(audio) from error
    except (wave.Error, EOFError, ZeroDivisionError) as error:
        raise _damaged(audio) from error
    except OSError as error:
        raise _unreadable(audio, error) from error


def _picture_uri(path: Path) -> bytes:
    from PIL import Image  # noqa: PLC0415 -- slow to import, and only a finished job needs it

    data = _read(path, bytes_max=PICTURE_BYTES_MAX)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > PICTURE_PIXELS_MAX:
                raise _too_large(path.name, image.width * image.height, PICTURE_PIXELS_MAX, "pixels")
            picture = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _damaged(path) from error
    picture.thumbnail((PICTURE_SIDE_PX_MAX, PICTURE_SIDE_PX_MAX), Image.Resampling.LANCZOS)
    webp = io.BytesIO()
    picture.save(webp, "WEBP", quality=_WEBP_QUALITY)
    return b"data:image/webp;base64," + base64.b64encode(webp.getvalue())


def _read(path: Path, *, bytes_max: int) -> bytes:
    try:
        if (size_bytes := path.stat().st_size) > bytes_max:
            raise _too_large(path.name, size_bytes, bytes_max)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _too_large(what: str, size: int, size_max: int, of: str = "bytes") -> Rejected:
    message = f"{what} has {size:,} {of}; the most is {size_max:,}"
    return Rejected("page_too_large", message, hint="ask for fewer or shorter scenes", unit="page")


def _missing(path: Path) -> Rejected:
    hint = "move the job back to the stage that makes it"
    return Rejected("page_part_missing", f"{path.name} is not there", hint=hint, unit="page")


def _damaged(path: Path) -> Rejected:
    hint = "remove the file and move the job back to the stage that makes it"
    return Rejected("page_part_damaged", f"{path.name} cannot be decoded", hint=hint, unit="page")


def _unreadable(path: Path, error: OSError) -> StorageTrouble:
    message = f"{path.name} cannot be read: {error.strerror}"
    return StorageTrouble("page_part_unreadable", message, unit="page")
