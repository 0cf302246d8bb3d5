"""Read the JSON files that commands pass on."""

import json
from pathlib import Path
from typing import Any

from autoslim_cli.errors import ArtifactError


def read_json(path: Path, what: str, origin: str) -> dict[str, Any]:
    """Return a file's JSON object. Raises ArtifactError saying where such files come from if it is none.

    `what` names the kind of file, as "channel config"; `origin` says what writes it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such {what}; {origin}") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read as a {what} ({error.strerror}); {origin}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not valid JSON ({error}); {origin}") from None
    if not isinstance(values, dict):
        raise ArtifactError(f"{path}: not a {what}: it must be a JSON object; {origin}")
    return values
