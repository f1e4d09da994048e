"""What backends that draw by HTTP have in common: the prompt, sizes, and the bytes of a picture in JSON.

Owns what a topic or a model may put into a prompt. Promises that nothing of it is obeyed by a server (networks are
loaded by `<lora:…>`, stable-diffusion.cpp reads its arguments from `<sd_cpp_extra_args>`), while the owner's own
template is left as it is. Never knows a server.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from string import Template
from typing import Any, Final

from topicd.backends.base import PictureRequest
from topicd.errors import Rejected, RetryLater

PICTURE_BYTES_MAX: Final = 33_554_432
WORDS_CHARS_MAX: Final = 1000
PLACEHOLDERS: Final = frozenset({"prompt", "style", "title", "narration"})
SIDE_STEP_PX: Final = 8
"""Diffusion models draw in steps of so many pixels."""

_ARGUMENTS: Final = re.compile(r"<\s*(sd_cpp_extra_args)\s*>.*?(?:<\s*/\s*\1\s*>|$)", re.DOTALL | re.IGNORECASE)
_TAG: Final = re.compile(r"<[^<>]*>|sd_cpp_extra_args|[<>]", re.IGNORECASE)
_DATA_URL: Final = re.compile(r"^data:[\w/+.-]{1,64};base64,")


@dataclass(frozen=True, slots=True)
class PromptTemplates:
    """The owner's words around those of a scene, with `$prompt`, `$style`, `$title` and `$narration`.

    Attributes:
        positive: empty for `$prompt, $style`.
        negative: what no picture should show; may be empty.
    """

    positive: str = ""
    negative: str = ""

    def prompt(self, request: PictureRequest) -> str:
        """Return the prompt.

        Raises:
            Rejected: nothing is left of the scene's words.
        """
        if not harmless(request.prompt or request.title):
            hint = "write it without < and >"
            raise Rejected("prompt_empty", "nothing is left of the picture's prompt.", hint=hint)
        return _filled(self.positive or "$prompt, $style", request)

    def negative_prompt(self, request: PictureRequest) -> str:
        """Return what the picture should not show; may be empty."""
        return _filled(self.negative, request)


def check_template(text: str) -> str:
    """Return a template as it is.

    Raises:
        ValueError: it has a placeholder that is none.
    """
    template = Template(text)
    known = ", ".join(f"${name}" for name in sorted(PLACEHOLDERS))
    if not template.is_valid():
        raise ValueError("a $ in it begins no placeholder; write $$ for a dollar sign")
    if unknown := sorted(set(template.get_identifiers()) - PLACEHOLDERS):
        raise ValueError(f"${unknown[0][:40]} in it is no placeholder; the known ones are {known}")
    return text


def harmless(text: str) -> str:
    """Take out what a server would obey; without any angle bracket nothing of it can come together again."""
    plain = _TAG.sub(" ", _ARGUMENTS.sub(" ", text))
    printable = "".join(char if char.isprintable() else " " for char in plain)
    return " ".join(printable.split()).strip(" ,")


def decoded(text: str, *, of: str, bytes_max: int = PICTURE_BYTES_MAX) -> bytes:
    """Return a picture that came as base64, with or without `data:…` before it.

    Raises:
        Rejected: it is larger than `bytes_max`.
        RetryLater: it is no base64, or no PNG, JPEG or WebP.
    """
    if len(text) // 4 * 3 > bytes_max:
        hint = "have the server draw smaller pictures, or send JPEG"
        raise Rejected("answer_too_large", f"the picture is larger than {bytes_max:,} bytes.", hint=hint)
    try:
        data = base64.b64decode(_DATA_URL.sub("", text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RetryLater("not_image", f"the picture's base64 from {of} cannot be read.") from error
    if not is_image(data):
        raise RetryLater("not_image", f"what {of} sent is neither PNG, JPEG nor WebP.")
    return data


def is_image(data: bytes) -> bool:
    """Tell PNG, JPEG and WebP by how they begin; a content type may say anything."""
    png, jpeg = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
    return data.startswith((png, jpeg)) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def rounded_up(side_px: int) -> int:
    """Return the least side that can be drawn and is not smaller."""
    return -(-side_px // SIDE_STEP_PX) * SIDE_STEP_PX


def first_of(value: Any, key: str) -> Any:
    """Return the first of a list in a JSON object; None where there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found[0] if isinstance(found, list) and found else None


def _filled(template: str, request: PictureRequest) -> str:
    words = {
        "prompt": request.prompt or request.title,
        "style": request.style,
        "title": request.title,
        "narration": request.narration,
    }
    safe = {name: harmless(text)[:WORDS_CHARS_MAX].rstrip(" ,") for name, text in words.items()}
    # An empty style leaves its comma behind.
    parts = (part.strip() for part in Template(template).safe_substitute(safe).split(","))
    return ", ".join(part for part in parts if part)
