"""How many tokens a server's model knows: ids of prompts are drawn below that."""

import json
from pathlib import Path

from testbed.server import ServerSpec
from workloads.prompts import SMALL_VOCABULARY


def vocab_size(spec: ServerSpec) -> int:
    """Of the model's config where it is a folder; else a size that every model in common use has."""
    config = Path(spec.model_path or spec.model) / "config.json"
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return SMALL_VOCABULARY
    size = content.get("vocab_size") or content.get("text_config", {}).get("vocab_size")
    return int(size) if size else SMALL_VOCABULARY
