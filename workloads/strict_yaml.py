"""YAML that people write: plain data, every key once, no more of it than the file's size suggests."""

from pathlib import Path
from typing import Any

import yaml

MOST_BYTES = 1 << 20
MOST_VALUES = 200_000
DEEPEST = 60


class YamlFault(ValueError):
    """Text that is no such YAML; the message is one line."""


class _EachKeyOnce(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise RecursionError
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                raise yaml.composer.ComposerError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(name)
        return node


def yaml_file(path: Path) -> Any:
    """What a file holds. Raises YamlFault, without the file's name."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise YamlFault(f"{size:,} bytes; at most {MOST_BYTES:,} are read")
        return yaml_values(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise YamlFault(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise YamlFault(f"not UTF-8 text: {error.reason} at byte {error.start:,}") from error


def yaml_values(text: str) -> Any:
    """What `text` holds, aliases shared. Raises YamlFault for what is no YAML, and for aliases that multiply."""
    try:
        loader = _EachKeyOnce(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MOST_VALUES:
            raise YamlFault(f"more than {MOST_VALUES:,} values with its aliases written out")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise YamlFault(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise YamlFault("values within values, too deep or without an end") from error
    # What PyYAML lets through of values that their tag or shape promises and that are none: 2024-13-45, !!int x.
    except (ValueError, OverflowError, LookupError, AttributeError, TypeError) as error:
        if isinstance(error, YamlFault):
            raise
        raise YamlFault(f"a value that cannot be: {' '.join(str(error).split())}") from error


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node, what an alias repeats counted again. Raises RecursionError for one within itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        if not known[id(node)]:
            raise RecursionError
        return known[id(node)]
    known[id(node)] = 0
    pairs = isinstance(node, yaml.MappingNode)
    below = [part for pair in node.value for part in pair] if pairs else node.value
    known[id(node)] = 1 + sum(_size(part, known) for part in below)
    return known[id(node)]
