"""What several files of this tier begin with."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.site import Site


@pytest.fixture
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """A home and the server that shows it; the parameter, if any, has limits of `Site`'s."""
    made = Site(tmp_path, **getattr(request, "param", {}))
    await made.start()
    yield made
    await made.server.stop()
