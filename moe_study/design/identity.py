"""What makes two configurations the same run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_DIGITS = 16


def key_of(plain: Mapping[str, Any]) -> str:
    """The identity of a configuration in plain dicts, as it stands in a run's config.yaml."""
    identity = {name: section for name, section in plain.items() if name != "log"}
    identity["data"] = {name: value for name, value in plain["data"].items() if name != "root"}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:KEY_DIGITS]
