"""What the servers that speak as OpenAI does have in common, whichever of its APIs is used.

Owns how their models are listed, whether a route is there, and what an answer means that says something is not found.
Promises to ask for nothing but lists and, with an empty request, for the route. Never sends work: the backends do.
"""

from collections.abc import Iterator
from typing import Final

from topicd.backends.classify import excerpt
from topicd.backends.client import Client, Json
from topicd.errors import TopicdError, Unusable

NO_ROUTE: Final = frozenset({"not_found", "method_not_allowed"})
NAMES_SHOWN_MAX: Final = 12
# A server with a web page answers paths that it does not know with that page.
_NO_LIST: Final = NO_ROUTE | {"bad_answer"}
# With these, servers also answer a request that lacks what it needs, or names a model that they lack.
_VAGUE: Final = frozenset({"bad_request", "server_error"})


class OpenAIServer:
    """One server, one of its routes, and the model that is wanted there.

    Attributes:
        route: the whole path.
    """

    def __init__(self, client: Client, *, prefix: str, route: str, api: str, model: str) -> None:
        """Prepare, without asking the server.

        Args:
            client: the server.
            prefix: what stands before the route in the path; empty when the client's address has it already.
            route: as `chat/completions`.
            api: what a person calls it: `chat`, `speech`, `images`.
            model: as `/models` names it; empty to leave it to the server.
        """
        self._client, self._prefix = client, prefix.rstrip("/")
        self.route = f"{self._prefix}/{route}"
        self._api, self._model = api, model

    async def models(self) -> frozenset[str]:
        """Return the models; empty when the server does not list them."""
        return await self.names("models", "data")

    async def names(self, path: str, key: str) -> frozenset[str]:
        """Return what is listed at a path, there below `key` or as it is; empty when the server does not list it."""
        try:
            listed = await self._client.get_json(f"{self._prefix}/{path}")
        except TopicdError as error:
            if error.cause not in _NO_LIST:
                raise
            return frozenset()
        return frozenset(_named(listed.get(key) if isinstance(listed, dict) else listed))

    async def ask_route(self) -> None:
        """Tell by an empty request whether the route is there: where it is, the request is refused as a bad one.

        Raises:
            Unavailable: the server does not answer.
            Unusable: the route is not there.
        """
        try:
            await self._client.post_bytes(self.route, {}, is_work=False)
        except TopicdError as error:
            if error.cause in _VAGUE:
                return
            if error.cause not in NO_ROUTE:
                raise
            if not self._names_a_model(error):
                raise self.no_route(error) from error

    def check_model(self, models: frozenset[str]) -> None:
        """Raise when the model is not among these, of which none at all tells nothing.

        Raises:
            Unusable: it is not.
        """
        if not self._model or not models or models & {self._model, f"{self._model}:latest"}:
            return
        message = f"{self._client.server} has no model {excerpt(self._model)!r}; it has: {shown(models)}."
        raise Unusable("model_missing", message, hint="set one of these, or put the model on the server")

    async def meant(self, error: TopicdError) -> TopicdError:
        """Return what an error means: for a missing model, servers have answers of every kind."""
        if error.cause not in NO_ROUTE | _VAGUE:
            return error
        try:
            self.check_model(await self.models() if self._model else frozenset())
        except TopicdError as found:
            return found if found.cause == "model_missing" else error
        return self.no_route(error) if error.cause in NO_ROUTE else error

    def no_route(self, error: TopicdError) -> TopicdError:
        """Return what is not found: the server's own words tell, when it has any."""
        if self._names_a_model(error):
            return Unusable("model_missing", error.message, hint="set a model that the server has")
        hint = f"check the address: it must be a server with OpenAI's {self._api} API"
        return Unusable(f"not_{self._api}", f"{self.route} is not there: {error.message}", hint=hint)

    def words(self, error: TopicdError) -> str:
        """Return what the server said, in lower case, without its own name."""
        return error.message.replace(self._client.server, "").lower()

    def _names_a_model(self, error: TopicdError) -> bool:
        return "model" in self.words(error)


def shown(names: frozenset[str]) -> str:
    """Return a few of the names, for a person."""
    return excerpt(", ".join(sorted(names)[:NAMES_SHOWN_MAX]))


def _named(listed: Json) -> Iterator[str]:
    """Yield the names in a list of names, or of objects with an id or a name."""
    for item in listed if isinstance(listed, list) else ():
        name = item.get("id") or item.get("name") if isinstance(item, dict) else item
        if isinstance(name, str) and name:
            yield name
