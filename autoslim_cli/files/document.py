"""Read the JSON files that commands pass on."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.kinds import DOCUMENT, what_is
from autoslim_cli.recipe.errors import explain
from autoslim_cli.recipe.schema import Settings

Schema = TypeVar("Schema", bound=Settings)


def read_json(path: Path, what: str, origin: str) -> dict[str, Any]:
    """Return a file's JSON object. Raises ArtifactError saying where such files come from if it is none.

    `what` names the kind of file, as "channel config"; `origin` says what writes it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(values, ensure_ascii=False).encode()  # halves of characters could never be written again
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such {what}; {origin}") from None
    except (OSError, ValueError, RecursionError) as error:  # not JSON, not UTF-8, numbers or depth beyond all use
        if (kind := what_is(path)) not in (None, DOCUMENT):
            raise ArtifactError(f"{path}: {kind}, not a {what}; {origin}") from None
        if isinstance(error, OSError):
            raise ArtifactError(f"{path}: cannot be read as a {what} ({error.strerror}); {origin}") from None
        raise ArtifactError(f"{path}: not valid JSON ({error}); {origin}") from None
    if not isinstance(values, dict):
        raise ArtifactError(f"{path}: not a {what}: it must be a JSON object; {origin}")
    return values


def refuse_format(path: Path, values: dict[str, Any], wanted: str, what: str, origin: str) -> None:
    """Raise ArtifactError, which says what a file is, if its JSON object is of another format than a wanted one."""
    if values.get("format") == wanted:
        return
    if str(given := values.get("format")).partition("/")[0] == wanted.partition("/")[0]:
        raise ArtifactError(f"{path}: a {what} of another version, {given} and not {wanted}; {origin}")
    if (kind := what_is(path)) not in (None, DOCUMENT):
        raise ArtifactError(f"{path}: {kind}, not a {what}; {origin}")
    raise ArtifactError(f'{path}: not a {what}: it must be a JSON object with "format": "{wanted}"; {origin}')


def read_settings(path: Path, schema: type[Schema], what: str, origin: str) -> Schema:
    """Read a file as a schema says, which may have a field `format` whose default the file must hold.

    Raises ArtifactError naming the key; `what` and `origin` as in `read_json`.
    """
    values = read_json(path, what, origin)
    if "format" in schema.model_fields:
        refuse_format(path, values, schema.model_fields["format"].default, what, origin)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ArtifactError(f"{path}: {explain(error, schema)}") from None
