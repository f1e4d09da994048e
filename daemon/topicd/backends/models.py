"""The models that can be fetched by name: a table that comes with topicd, `models.toml`.

Owns what an entry must have. Promises that each has an address by https, a size and a sha256, so that what arrives is
what was meant, whoever serves it. Never fetches.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any, Final

from topicd.errors import Unusable

TABLE: Final = "models.toml"
KINDS: Final = ("gguf", "sd-checkpoint")
NEAREST_MAX: Final = 3
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is known.

    Attributes:
        name: what a person types.
        kind: one of `KINDS`: for the embedded LLM, or for a server that draws.
        file: its file's name.
        urls: where it is to be had, the best first.
        size_bytes: of the file.
        sha256: of the file, 64 digits.
        licence: its name, and what it forbids.
        needs: what it takes to run.
        about: for whom it is, one sentence.
    """

    name: str
    kind: str
    file: str
    urls: tuple[str, ...]
    size_bytes: int
    sha256: str
    licence: str
    needs: str
    about: str


@cache
def known() -> Mapping[str, Model]:
    """Return the models by name."""
    return parse((files("topicd.backends") / TABLE).read_text(encoding="utf-8"))


def find(name: str) -> Model:
    """Return a model.

    Raises:
        Unusable: there is none of that name; the hint has the nearest.
    """
    if model := known().get(name):
        return model
    near = difflib.get_close_matches(name, known(), NEAREST_MAX, 0.4)
    hint = f"nearest: {', '.join(near)}" if near else "`topicd fetch models` lists those there are"
    raise Unusable("model_unknown", f"There is no model {name[:60]!r} in the table.", hint=hint)


def parse(text: str) -> Mapping[str, Model]:
    """Return the models of a table.

    Raises:
        ValueError: an entry is not what it must be.
    """
    return {name: _model(name, entry) for name, entry in tomllib.loads(text)["models"].items()}


def _model(name: str, entry: Mapping[str, Any]) -> Model:
    wanted = {field.name for field in fields(Model)} - {"name"}
    if entry.keys() != wanted:
        raise ValueError(f"{name}: {sorted(entry.keys() ^ wanted)}")
    model = Model(name, **{**entry, "urls": tuple(entry["urls"])})
    sound = {
        "name": _NAME.fullmatch(name),
        "kind": model.kind in KINDS,
        "file": PurePosixPath(model.file).name == model.file,
        "urls": model.urls and all(url.startswith("https://") for url in model.urls),
        "size_bytes": type(entry["size_bytes"]) is int and model.size_bytes > 0,
        "sha256": _SHA256.fullmatch(model.sha256),
        "licence": model.licence,
        "needs": model.needs,
        "about": model.about,
    }
    if wrong := [key for key, is_sound in sound.items() if not is_sound]:
        raise ValueError(f"{name}: {wrong}")
    return model
