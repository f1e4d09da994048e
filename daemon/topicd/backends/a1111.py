"""Pictures from a server that speaks the AUTOMATIC1111 API: the web UI, Forge, SD.Next, stable-diffusion.cpp.

Owns the translation between our values and `/sdapi/v1/txt2img`. Promises the bytes of one PNG, JPEG or WebP,
and a prompt in which the topic cannot load networks or set the server's arguments. Reads nothing of `info`,
which is a string, empty or missing by server. Never checks size or content of the picture: the images stage
does.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

from topicd.backends.base import Picture, PictureRequest, Probe
from topicd.backends.client import Client, Json
from topicd.errors import Rejected, RetryLater, TopicdError, Unusable

_PATH: Final = "/sdapi/v1"
_SIDE_STEP_PX: Final = 8
_PROMPT_CHARS_MAX: Final = 1000
_NAMES_SHOWN_MAX: Final = 12

# stable-diffusion.cpp reads arguments from this element; web UIs load networks by `<lora:…>`, `<hypernet:…>`.
_ARGUMENTS: Final = re.compile(r"<\s*(sd_cpp_extra_args)\s*>.*?(?:<\s*/\s*\1\s*>|$)", re.DOTALL | re.IGNORECASE)
_TAG: Final = re.compile(r"<[^<>]*>|sd_cpp_extra_args|[<>]", re.IGNORECASE)
_DATA_URL: Final = re.compile(r"^data:[\w/+.-]{1,64};base64,")


class A1111:
    """An `ImageBackend` on an AUTOMATIC1111 API."""

    name = "a1111"
    calls_max = 1
    holds_gpu = True

    def __init__(
        self,
        client: Client,
        *,
        model: str = "",
        steps: int = 20,
        cfg_scale: float = 7.0,
        sampler: str = "",
        negative_prompt: str = "",
        picture_bytes_max: int = 33_554_432,
    ) -> None:
        """Prepare, without asking the server. What is empty is left to the server.

        Args:
            client: the server; this backend closes it.
            model: checkpoint, by title or name.
            steps: of the sampler.
            cfg_scale: how closely the prompt is followed.
            sampler: as the server names it.
            negative_prompt: what the picture should not show.
            picture_bytes_max: for one decoded picture.
        """
        self._client = client
        self._model = model
        self._picture_bytes_max = picture_bytes_max
        given: dict[str, Json] = {"steps": steps, "cfg_scale": cfg_scale, "sampler_name": sampler}
        given["negative_prompt"] = negative_prompt
        self._parameters = {key: value for key, value in given.items() if value != ""}

    def provenance(self) -> Mapping[str, str]:
        """Return server kind, model and parameters."""
        parameters = {key: str(value) for key, value in self._parameters.items()}
        return {"server": "a1111", "model": self._model, **parameters}

    async def probe(self) -> Probe:
        """Ask for the options, and for the model if one is set.

        Raises:
            Unavailable: the server does not answer.
            Unusable: it does not speak this API, or lacks the model.
        """
        options = await self._options()
        if self._model:
            await self._check_model()
        loaded = str(options.get("sd_model_checkpoint") or "")
        model = self._model or loaded or "its own model"
        return Probe(f"AUTOMATIC1111 API, {model}", {"loaded_model": loaded})

    async def draw(self, request: PictureRequest) -> Picture:
        """Return the picture. Width and height are rounded up to multiples of 8, as diffusion models need.

        Raises:
            RetryLater: the server failed, or what it sent is no picture.
            Unavailable: the server is away or busy.
            Rejected: the server refuses this request, or nothing is left of the prompt.
            Unusable: the server does not speak this API, or lacks the sampler or model.
        """
        try:
            answer = await self._client.post_json(f"{_PATH}/txt2img", self._body(request))
        except TopicdError as error:
            raise await self._refined(error) from error
        return Picture(self._picture(answer))

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.aclose()

    def _body(self, request: PictureRequest) -> dict[str, Json]:
        settings = {"override_settings": {"sd_model_checkpoint": self._model}} if self._model else {}
        return {
            "prompt": _prompt(request),
            "width": _rounded_up(request.width_px),
            "height": _rounded_up(request.height_px),
            "seed": request.seed,
            "batch_size": 1,
            "n_iter": 1,
            "send_images": True,
            "save_images": False,
            **self._parameters,
            **settings,
        }

    def _picture(self, answer: Json) -> bytes:
        images = answer.get("images") if isinstance(answer, dict) else None
        if not isinstance(images, list) or not images or not isinstance(images[0], str):
            raise RetryLater("no_image", f"{self._client.server} answered without a picture.")
        data = self._decoded(images[0])
        if not _is_image(data):
            raise RetryLater("not_image", "what the server sent is neither PNG, JPEG nor WebP.")
        return data

    def _decoded(self, text: str) -> bytes:
        if len(text) // 4 * 3 > self._picture_bytes_max:
            raise Rejected("answer_too_large", f"the picture is larger than {self._picture_bytes_max} bytes.")
        try:
            return base64.b64decode(_DATA_URL.sub("", text), validate=True)
        except (binascii.Error, ValueError) as error:
            raise RetryLater("not_image", "the picture's base64 cannot be read.") from error

    async def _refined(self, error: TopicdError) -> TopicdError:
        """A 404 means either no API at all, or an unknown sampler or model."""
        if error.cause != "not_found":
            return error
        await self._options()
        hint = "check the names of sampler and model against the server's"
        return Unusable("sampler_or_model_missing", error.message, hint=hint)

    async def _options(self) -> dict[str, Json]:
        try:
            options = await self._client.get_json(f"{_PATH}/options")
        except TopicdError as error:
            raise (self._no_api() if error.cause == "not_found" else error) from error
        if not isinstance(options, dict):
            raise self._no_api()
        return options

    async def _check_model(self) -> None:
        listed = await self._client.get_json(f"{_PATH}/sd-models")
        models = [model for model in listed if isinstance(model, dict)] if isinstance(listed, list) else []
        names = {str(model[key]) for model in models for key in ("title", "model_name") if key in model}
        if self._model in names:
            return
        shown = ", ".join(sorted(names)[:_NAMES_SHOWN_MAX]) or "none"
        message = f"the server has no model {self._model[:100]!r}; it has: {shown}."
        raise Unusable("model_missing", message, hint="set one of these, or put the model on the server")

    def _no_api(self) -> Unusable:
        message = f"{self._client.server} does not speak the AUTOMATIC1111 API."
        return Unusable("api_off", message, hint="start the web UI with --api, and check the address")


def _prompt(request: PictureRequest) -> str:
    parts = [_harmless(part) for part in (request.prompt or request.title, request.style)]
    if not parts[0]:
        raise Rejected("prompt_empty", "nothing is left of the picture's prompt.", hint="write it without < and >")
    return ", ".join(part for part in parts if part)[:_PROMPT_CHARS_MAX]


def _harmless(text: str) -> str:
    """Take out what a server would obey; without any angle bracket nothing of it can come together again."""
    plain = _TAG.sub(" ", _ARGUMENTS.sub(" ", text))
    return " ".join(plain.split()).strip(" ,")


def _rounded_up(side_px: int) -> int:
    return -(-side_px // _SIDE_STEP_PX) * _SIDE_STEP_PX


def _is_image(data: bytes) -> bool:
    png, jpeg = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
    return data.startswith((png, jpeg)) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
