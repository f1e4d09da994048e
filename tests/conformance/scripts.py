"""The suite for backends that write scripts."""

from dataclasses import replace

from conformance.backend import NO_WORDS, TEXTS, BackendSuite
from topicd.backends.base import Script, ScriptBackend, ScriptRequest
from topicd.stages import scripts

PARAGRAPHS = (
    "The Moon pulls on the sea and raises two bulges of water.",
    "As the Earth turns, a coast is carried through both of them.",
    "Where the bay is narrow the water can rise by sixteen metres.",
)
PLAIN = ScriptRequest(
    title="Why the sea rises",
    guidance="\n\n".join(PARAGRAPHS),
    language="en",
    scenes=len(PARAGRAPHS),
    style="calm and plain",
    seed=7,
)
SENTENCE = "and the water rises again"
ONE = replace(PLAIN, guidance=PARAGRAPHS[0], scenes=1)
UNUSUAL = {
    "only a title": replace(ONE, guidance=""),
    "empty style": replace(ONE, style=""),
    "long style": replace(ONE, style="slowly and " * 45),
    "seed 0": replace(ONE, seed=0),
    "largest seed": replace(ONE, seed=2**31 - 1),
    "long text": replace(ONE, guidance=f"{SENTENCE}. " * 2_000),
    "long text without a stop": replace(ONE, guidance=f"{SENTENCE} " * 400),
    "one long word": replace(ONE, guidance=f"{'a' * 8_000}."),
    "long title": replace(ONE, title="Sea " * 50),
    "Brazilian": replace(ONE, language="pt-BR", title="Por que o mar sobe", guidance="A Lua puxa a água do mar."),
    "a language nobody knows": replace(ONE, language="qaa-Zzzz"),
    "fewer scenes than paragraphs": replace(PLAIN, scenes=1),
    "no words in the text": replace(ONE, guidance=NO_WORDS),
    **{name: replace(ONE, title=text, guidance=text) for name, text in TEXTS.items()},
}


class ScriptSuite(BackendSuite[ScriptBackend, ScriptRequest, Script]):
    """What every ScriptBackend does."""

    protocol = ScriptBackend
    plain = PLAIN
    other = ONE
    long = replace(PLAIN, guidance="", scenes=12)
    unusual = UNUSUAL

    async def ask(self, backend: ScriptBackend, request: ScriptRequest) -> Script:
        return await backend.write(request)

    def check(self, product: Script, request: ScriptRequest) -> None:
        assert isinstance(product, Script)
        scripts.check(product)
        assert 1 <= len(product.scenes) <= request.scenes
        if request is self.plain:
            assert len(product.scenes) == request.scenes, "it was given a paragraph for each scene"
            assert all(scene.picture.strip() for scene in product.scenes)
