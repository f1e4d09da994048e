"""Pictures from a server that speaks the AUTOMATIC1111 API: the web UI, Forge, SD.Next, stable-diffusion.cpp.

Owns the translation between our values and `/sdapi/v1`, and what a server of the family can do: stable-diffusion.cpp's
tells no progress, takes no other model and cannot be interrupted. Promises the bytes of one PNG, JPEG or WebP, and that
a picture which is not wanted any more is interrupted where that can be done. Reads nothing of `info`, which is a
string, empty or missing by server. Never checks size or content of the picture: the images stage does.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final

from topicd.backends.base import Picture, PictureRequest, Probe, ServerState
from topicd.backends.client import Client, Json
from topicd.backends.picturing import PICTURE_BYTES_MAX, PromptTemplates, decoded, first_of, rounded_up
from topicd.errors import RetryLater, TopicdError, Unusable

_PATH: Final = "/sdapi/v1"
# A server with a web page answers paths that it does not know with that page.
_NO_ROUTE: Final = frozenset({"not_found", "method_not_allowed", "bad_answer"})
_NAMES_SHOWN_MAX: Final = 12
_INTERRUPT_S_MAX: Final = 3.0


class A1111:
    """An `ImageBackend` on an AUTOMATIC1111 API; it also `Frees`."""

    name = "a1111"
    holds_gpu = True

    def __init__(
        self,
        client: Client,
        *,
        model: str = "",
        steps: int = 20,
        cfg_scale: float = 7.0,
        sampler: str = "",
        templates: PromptTemplates | None = None,
        calls_max: int = 1,
        picture_bytes_max: int = PICTURE_BYTES_MAX,
        progress_s: float = 2.0,
    ) -> None:
        """Prepare, without asking the server. What is empty is left to the server.

        Args:
            client: the server; this backend closes it.
            model: checkpoint, by title or name.
            steps: of the sampler.
            cfg_scale: how closely the prompt is followed.
            sampler: as the server names it.
            templates: of the prompts.
            calls_max: how many calls at once; web UIs work them off one by one, and mix them up when there are several.
            picture_bytes_max: for one decoded picture.
            progress_s: between two questions how far a picture is.
        """
        self.calls_max = calls_max
        self._client = client
        self._model, self._sampler = model, sampler
        self._templates = templates or PromptTemplates()
        self._picture_bytes_max = picture_bytes_max
        self._progress_s = progress_s
        given: dict[str, Json] = {"steps": steps, "cfg_scale": cfg_scale, "sampler_name": sampler}
        self._parameters = {key: value for key, value in given.items() if value != ""}
        self._has_progress: bool | None = None  # None until it is asked
        self._drawing = 0
        self._note = ""

    def provenance(self) -> Mapping[str, str]:
        """Return server kind, model, parameters and the templates."""
        parameters = {key: str(value) for key, value in self._parameters.items()}
        templates = {"prompt": self._templates.positive, "negative_prompt": self._templates.negative}
        return {"server": "a1111", "model": self._model, **parameters, **templates}

    def note(self) -> str:
        """Return how far a picture is, for a person; empty when none is drawn or the server does not tell."""
        return self._note

    def servers(self) -> Sequence[ServerState]:
        """Return what is known of the server, without asking it."""
        return [self._client.state(self.note())]

    async def probe(self) -> Probe:
        """Ask for the options, for model and sampler if they are set, and whether it tells progress.

        Raises:
            Unavailable: the server does not answer.
            Unusable: it does not speak this API, or lacks the model or the sampler.
        """
        options = await self._options()
        models = await self._names("sd-models", "title", "model_name")
        samplers = await self._names("samplers", "name")
        self._check("model", self._model, models)
        self._check("sampler", self._sampler, samplers)
        self._has_progress = await self._tells_progress()
        loaded = str(options.get("sd_model_checkpoint") or "")
        model = self._model or loaded or "its own model"
        details = {"loaded_model": loaded, "models": sorted(models), "samplers": sorted(samplers)}
        return Probe(f"AUTOMATIC1111 API, {model}", {**details, "progress": self._has_progress})

    async def draw(self, request: PictureRequest) -> Picture:
        """Return the picture. Width and height are rounded up to multiples of 8, as diffusion models need.

        Raises:
            RetryLater: the server failed, or what it sent is no picture.
            Unavailable: the server is away or busy.
            Rejected: the server refuses this request, or nothing is left of the prompt.
            Unusable: the server does not speak this API, or lacks the sampler or model.
        """
        body = self._body(request)
        if self._has_progress is None:
            self._has_progress = await self._tells_progress()
        if self._model and self._has_progress:
            body["override_settings"] = {"sd_model_checkpoint": self._model}
        try:
            async with self._watched():
                answer = await self._client.post_json(f"{_PATH}/txt2img", body)
        except TopicdError as error:
            meant = await self._refined(error)
            if meant is error:
                raise
            raise meant from error
        image = first_of(answer, "images")
        if not isinstance(image, str):
            raise RetryLater("no_image", f"{self._client.server} answered without a picture.")
        return Picture(decoded(image, of=self._client.server, bytes_max=self._picture_bytes_max))

    async def free(self) -> None:
        """Have the server unload its checkpoint; one that cannot keeps it.

        Raises:
            TopicdError: the server did not do it.
        """
        with _no_route_is_fine():
            await self._client.post_bytes(f"{_PATH}/unload-checkpoint", {}, is_work=False)

    async def aclose(self) -> None:
        """Close the connections. Safe to call twice."""
        await self._client.aclose()

    def _body(self, request: PictureRequest) -> dict[str, Json]:
        return {
            "prompt": self._templates.prompt(request),
            "negative_prompt": self._templates.negative_prompt(request),
            "width": rounded_up(request.width_px),
            "height": rounded_up(request.height_px),
            "seed": request.seed,
            "batch_size": 1,
            "n_iter": 1,
            "send_images": True,
            "save_images": False,
            **self._parameters,
        }

    @contextlib.asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Follow how far the picture is; interrupt it when it is not wanted any more."""
        watch = asyncio.create_task(self._follow()) if self._has_progress else None
        self._drawing += 1
        try:
            yield
        except asyncio.CancelledError:
            # An interruption stops whatever the server draws: with several at once it could be another's.
            if watch and self._drawing == 1:
                await self._interrupt()
            raise
        finally:
            self._drawing -= 1
            self._note = ""
            if watch:
                watch.cancel()
                await asyncio.wait([watch])

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._progress_s)
            with contextlib.suppress(TopicdError):  # it is but a question
                told = await self._client.get_json(f"{_PATH}/progress?skip_current_image=true")
                done = told.get("progress") if isinstance(told, dict) else None
                if isinstance(done, int | float) and 0 < done <= 1:
                    self._note = f"drawing: {100 * done:.0f} %"

    async def _interrupt(self) -> None:
        with contextlib.suppress(TopicdError, TimeoutError):
            async with asyncio.timeout(_INTERRUPT_S_MAX):
                await self._client.post_bytes(f"{_PATH}/interrupt", {}, is_work=False)

    async def _tells_progress(self) -> bool:
        """Tell a web UI from stable-diffusion.cpp's server, which has neither progress nor settings to override."""
        with _no_route_is_fine():
            return isinstance(await self._client.get_json(f"{_PATH}/progress?skip_current_image=true"), dict)
        return False

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

    async def _names(self, path: str, *keys: str) -> frozenset[str]:
        """Return what a list of the server names; empty where it has no such list."""
        listed: Json = None
        with _no_route_is_fine():
            listed = await self._client.get_json(f"{_PATH}/{path}")
        items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        return frozenset(str(item[key]) for item in items for key in keys if item.get(key))

    def _check(self, what: str, name: str, names: frozenset[str]) -> None:
        if not name or not names or name in names:
            return
        shown = ", ".join(sorted(names)[:_NAMES_SHOWN_MAX])
        message = f"{self._client.server} has no {what} {name[:100]!r}; it has: {shown}."
        raise Unusable(f"{what}_missing", message, hint=f"set one of these, or put the {what} on the server")

    def _no_api(self) -> Unusable:
        message = f"{self._client.server} does not speak the AUTOMATIC1111 API."
        return Unusable("api_off", message, hint="start the web UI with --api, and check the address")


@contextlib.contextmanager
def _no_route_is_fine() -> Iterator[None]:
    try:
        yield
    except TopicdError as error:
        if error.cause not in _NO_ROUTE:
            raise
