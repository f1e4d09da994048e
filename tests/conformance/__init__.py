"""One suite of tests for each Protocol of `topicd.backends.base`, to be run on every implementation.

A suite is a class of tests without a backend. A test module runs it by inheriting it and giving the fixture `backend`:

    class TestMine(ScriptSuite):
        @pytest.fixture
        async def backend(self) -> AsyncIterator[ScriptBackend]:
            async with contextlib.aclosing(Mine()) as made:
                yield made
"""

import pytest

pytest.register_assert_rewrite("conformance.backend", "conformance.scripts", "conformance.audio", "conformance.images")
