"""YAML read node by node, so that every value keeps its text, its key path and its line.

The ordinary loaders guess types (`12:34:56:12:34:56` becomes a base-60 number, `1.0` a float) and
let a repeated key win silently; a configuration file deserves better.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from fsctl.errors import ConfigError

_NULLS = ("", "~", "null", "Null", "NULL")
_INTEGER = re.compile(r"[0-9]{1,12}\Z")


@dataclass(frozen=True, slots=True)
class Item:
    """One YAML node: where it stands (`file`, `path`, line) and what it says."""

    file: str
    path: str
    node: yaml.Node

    @property
    def line(self) -> int:
        return int(self.node.start_mark.line) + 1

    @property
    def value(self) -> object:
        """What an error shows: the scalar's text, or what kind of thing stands there."""
        if isinstance(self.node, yaml.ScalarNode):
            return self.node.value
        return "a mapping" if isinstance(self.node, yaml.MappingNode) else "a list"

    def error(self, expected: str) -> ConfigError:
        """The error that this value is not what was expected."""
        return ConfigError(self.file, f"line {self.line}: expected {expected}", field=self.path, value=self.value)

    @property
    def is_null(self) -> bool:
        node = self.node
        return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS

    def text(self, expected: str, pattern: re.Pattern[str] | None = None) -> str:
        """A scalar as written; raises ConfigError where it is empty, no scalar, or does not match."""
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null or not self.node.value:
            raise self.error(expected)
        text: str = self.node.value
        if pattern is not None and not pattern.fullmatch(text):
            raise self.error(expected)
        return text

    def integer(self, low: int, high: int) -> int:
        """A decimal number between `low` and `high`."""
        expected = f"a whole number from {low} to {high}"
        text = self.text(expected, _INTEGER)
        if not low <= int(text) <= high:
            raise self.error(expected)
        return int(text)

    def items(self, expected: str) -> Iterator[Item]:
        """The elements of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(expected)
        for n, node in enumerate(self.node.value):
            yield Item(self.file, f"{self.path}[{n}]", node)

    def mapping(self, expected: str) -> dict[str, Item]:
        """The entries of a mapping; a key that stands there twice is an error."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(expected)
        entries: dict[str, Item] = {}
        for key_node, node in self.node.value:
            key = Item(self.file, self.path, key_node).text("a plain key")
            path = f"{self.path}.{key}" if self.path else key
            if key in entries:
                line, first = key_node.start_mark.line + 1, entries[key].line
                detail = f"line {line}: this key stands here twice, first at line {first}: expected once"
                raise ConfigError(self.file, detail, field=path, value=key)
            entries[key] = Item(self.file, path, node)
        return entries

    def section(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Item]:
        """A mapping with known keys; an unknown key is an error that suggests the nearest known one."""
        known = (*required, *optional)
        entries = self.mapping(f"a mapping with the keys {', '.join(known)}")
        for key, item in entries.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
                raise ConfigError(self.file, f"line {item.line}: unknown key; {hint}", field=item.path, value=key)
        for key in required:
            if key not in entries:
                path = f"{self.path}.{key}" if self.path else key
                raise ConfigError(self.file, f"line {self.line}: expected this key, it is missing", field=path)
        return entries


def read(path: Path) -> Item:
    """The root of a YAML file; raises ConfigError where it cannot be read or is no YAML (with the line)."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(str(path), f"expected a readable file: {e}") from e
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(str(path), f"{where}expected YAML: {e.problem or e.context}") from e
    except yaml.YAMLError as e:
        raise ConfigError(str(path), f"expected YAML: {e}") from e
    if node is None:
        raise ConfigError(str(path), "expected a configuration, the file is empty")
    return Item(str(path), "", node)
