"""A backend of your own: scripts without a model, one scene a paragraph of the topic.

PYTHONPATH=examples TOPICD_SCRIPT_BACKEND=own_backend:Paragraphs topicd run
"""

import textwrap

from topicd.backends.base import Probe, Scene, Script, ScriptRequest
from topicd.errors import Rejected


class Paragraphs:
    """A ScriptBackend that needs nothing."""

    name = "paragraphs"
    calls_max = 8
    holds_gpu = False

    def provenance(self) -> dict[str, str]:
        """Return all that changes the script, beside the request."""
        return {"version": "1"}

    async def probe(self) -> Probe:
        """Say what it is."""
        return Probe("the topic's own paragraphs, no model")

    async def write(self, request: ScriptRequest) -> Script:
        """Return a scene for each paragraph, more for a very long one; the title's if there is none."""
        parts = [part for text in request.guidance.split("\n\n") for part in textwrap.wrap(text, 2_000)]
        parts = [part for part in parts if any(char.isalnum() for char in part)] or [request.title]
        if len(parts) > request.scenes:
            hint = f"write `scenes: {len(parts)}` into the topic's front matter"
            raise Rejected("too_many_paragraphs", f"{len(parts)} paragraphs do not fit the scenes", hint=hint)
        return Script(request.title, tuple(Scene(part, part[:200]) for part in parts))

    async def aclose(self) -> None:
        """Let go of nothing."""
