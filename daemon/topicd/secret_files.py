"""Secrets that stand in files of their own: `NAME_FILE` names one, for every secret setting `NAME`.

Owns how such a file is found and read; systemd's credentials, which are a directory of files by name, are read by
pydantic-settings itself. Promises that a file that cannot be read, is too large, or names a secret a second time is
told by its name and never by what is in it. Never writes.
"""

import os
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from topicd.env_file import values
from topicd.errors import Unusable

SECRET_BYTES_MAX: Final = 65_536
ENDING: Final = "_FILE"


class SecretFiles(PydanticBaseSettingsSource):
    """The source that pydantic-settings asks between the environment and `.env`."""

    def __init__(self, settings: type[BaseSettings], env_file: Path) -> None:
        super().__init__(settings)
        self._env_file = env_file

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing for a field: `__call__` has them all."""
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return each secret that a file holds, by its setting's name.

        Raises:
            Unusable: a file cannot be read, or its secret is set twice.
        """
        fields = self.settings_cls.model_fields.values()
        names = [str(info.validation_alias) for info in fields if info.annotation is SecretStr]
        given = {**values(self._env_file), **os.environ}
        found = {name: path for name in names if (path := given.get(f"{name}{ENDING}"))}
        twice = [f"{name} and {name}{ENDING}: set one of them" for name in found if given.get(name)]
        if twice:
            raise Unusable("settings", "\n".join(twice))
        return {name: _read(Path(path), f"{name}{ENDING}") for name, path in found.items()}


def _read(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_BYTES_MAX + 1)
        text = data.decode()
    except OSError as error:
        raise Unusable("settings", f"{name}={path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise Unusable("settings", f"{name}={path}: is no text in UTF-8") from error
    if len(data) > SECRET_BYTES_MAX:
        raise Unusable("settings", f"{name}={path}: is larger than {SECRET_BYTES_MAX:,} bytes")
    return text.strip()
