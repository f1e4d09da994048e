"""Pictures from a server that speaks as OpenAI does: LocalAI, stable-diffusion.cpp's server, and the cloud.

Owns the translation between our values and `/images/generations`. Promises the bytes of one PNG, JPEG or WebP; a server
that refuses a field or a size is asked with less, and what worked is remembered. Never fetches an address that a server
names; never checks size or content of the picture: the images stage does. The API knows no negative prompt and no seed.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from topicd.backends.base import Picture, PictureRequest, Probe, ServerState
from topicd.backends.client import Client, Json
from topicd.backends.openai import OpenAIServer
from topicd.backends.picturing import PICTURE_BYTES_MAX, PromptTemplates, decoded, first_of, rounded_up
from topicd.errors import Rejected, RetryLater, TopicdError, Unusable

_POLICY: Final = ("content_policy", "content policy", "moderation", "safety system")
_STANDARD: Final = "1024x1024"


class OpenAIImages:
    """An `ImageBackend` on a server with OpenAI's `/images/generations`."""

    name = "openai-images"

    def __init__(
        self,
        client: Client,
        *,
        model: str = "",
        prefix: str = "/v1",
        calls_max: int = 1,
        holds_gpu: bool = False,
        templates: PromptTemplates | None = None,
        picture_bytes_max: int = PICTURE_BYTES_MAX,
    ) -> None:
        """Prepare, without asking the server. What is empty is left to the server.

        Args:
            client: the server; this backend closes it.
            model: as `/models` names it.
            prefix: what stands before `/images/generations` in the path; empty when the address has it already.
            calls_max: how many calls at once the server takes.
            holds_gpu: whether the server occupies the GPU while it has a model loaded.
            templates: of the prompt; the negative one has no place in this API.
            picture_bytes_max: for one decoded picture.
        """
        self.calls_max, self.holds_gpu = calls_max, holds_gpu
        self._client, self._model = client, model
        self._server = OpenAIServer(client, prefix=prefix, route="images/generations", api="images", model=model)
        self._templates = templates or PromptTemplates()
        self._picture_bytes_max = picture_bytes_max
        self._way = 0

    def provenance(self) -> Mapping[str, str]:
        """Return server kind, model and template."""
        return {"server": "openai-images", "model": self._model, "prompt": self._templates.positive}

    def servers(self) -> Sequence[ServerState]:
        """Return what is known of the server, without asking it."""
        return [self._client.state()]

    async def probe(self) -> Probe:
        """Ask for the models; where the server lists none, whether it knows the route.

        Raises:
            Unavailable: the server does not answer.
            Unusable: it has no such API, or lacks the model.
        """
        models = await self._server.models()
        if not models:
            await self._server.ask_route()
        self._server.check_model(models)
        return Probe(f"OpenAI images, {self._model or 'its own model'}", {"models": sorted(models)})

    async def draw(self, request: PictureRequest) -> Picture:
        """Return the picture, as near to the size as the server draws.

        Raises:
            RetryLater: the server failed, or what it sent is no picture.
            Unavailable: the server is away or busy.
            Rejected: the server refuses this picture, or nothing is left of the prompt.
            Unusable: the server lacks the model or the route, or sends addresses in the place of pictures.
        """
        model = {"model": self._model} if self._model else {}
        body = {**model, "prompt": self._templates.prompt(request), "n": 1}
        try:
            answer = await self._asked(body, request, self._way)
        except TopicdError as error:
            meant = await self._meant(error)
            if meant is error:
                raise
            raise meant from error
        return Picture(self._picture(first_of(answer, "data")))

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.aclose()

    async def _asked(self, body: Mapping[str, Json], request: PictureRequest, way: int) -> Json:
        """Ask in one way, in the next one where that is refused; remember what worked."""
        ways = _ways(request)
        try:
            answer = await self._client.post_json(self._server.route, {**body, **ways[way]})
        except TopicdError as error:
            # Which field is meant, servers say in too many ways: what a second try tells is certain.
            if error.cause != "bad_request" or _is_policy(error) or way == len(ways) - 1:
                raise
        else:
            self._way = way
            return answer
        return await self._asked(body, request, way + 1)

    def _picture(self, item: Json) -> bytes:
        image = item.get("b64_json") if isinstance(item, dict) else None
        if isinstance(image, str) and image:
            return decoded(image, of=self._client.server, bytes_max=self._picture_bytes_max)
        if isinstance(item, dict) and item.get("url"):
            message = f"{self._client.server} sends the address of a picture, and not the picture."
            raise Unusable("image_by_url", message, hint="set it up to answer with b64_json")
        raise RetryLater("no_image", f"{self._client.server} answered without a picture.")

    async def _meant(self, error: TopicdError) -> TopicdError:
        """Return what an error means: for a picture that is not allowed, servers have no status of its own."""
        if _is_policy(error):
            hint = "word the topic in another way, or draw with another server"
            return Rejected("picture_refused", error.message, hint=hint)
        return await self._server.meant(error)


def _ways(request: PictureRequest) -> Sequence[Mapping[str, Json]]:
    """Return the ways to ask, the best first: just the size, then the nearest that the cloud's models draw."""
    asked = f"{rounded_up(request.width_px)}x{rounded_up(request.height_px)}"
    wide, tall = request.width_px > request.height_px, request.width_px < request.height_px
    near = "1536x1024" if wide else "1024x1536" if tall else _STANDARD
    as_base64 = {"response_format": "b64_json"}
    return [
        {"size": asked, **as_base64},
        {"size": asked},
        {"size": near},
        {"size": _STANDARD, **as_base64},
        {"size": _STANDARD},
    ]


def _is_policy(error: TopicdError) -> bool:
    return isinstance(error, Rejected) and any(word in error.message.lower() for word in _POLICY)
