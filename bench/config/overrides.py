"""``--set a.b=c``: change a value of the tree before anything is validated."""

from __future__ import annotations

from bench.config.errors import ConfigError, Place, did_you_mean, shown, storable
from bench.config.tree import MAX_DEPTH, Entry, Node, parse_value


def apply(root: Node, override: str) -> None:
    """Set one value in the tree, in place.

    ``override`` is ``PATH=VALUE``. PATH is keys joined by dots; an item of a list is named by its
    index from 0, or by its ``name``. VALUE is YAML: ``10``, ``null``, ``[512, 1024]``,
    ``{name: none}``. Mappings that the path needs are made, list items are not. Every value set
    this way reports ``--set PATH=VALUE`` as its place.

    Raises:
        ConfigError: no ``=``, an empty key, an item that is not there, a path through a plain
            value, or a VALUE that is not YAML.
    """
    place = Place(f"--set {override}")
    if not storable(override):
        raise ConfigError("holds bytes that are not text", place)
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise ConfigError("must be PATH=VALUE, such as defaults.steps=20", place)
    value = parse_value(text, place.source)
    node = root
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if keys[:depth] == ["protocol"] and isinstance(node.value, str):
            node.value = {"preset": Entry(node.place, Node(node.value, node.place))}
        if node.value is None:
            node.value = {}
        if isinstance(node.value, dict):
            if last:
                node.value[key] = Entry(place, value)
                return
            if key not in node.value:
                node.value[key] = Entry(place, Node({}, place))
            node.value[key] = Entry(node.value[key].key_place, _own(node.value[key].node))
            node = node.value[key].node
        elif isinstance(node.value, list):
            at = _item(node.value, key, ".".join(keys[:depth]), place)
            if last:
                node.value[at] = value
                return
            node.value[at] = _as_mapping(_own(node.value[at]))
            node = node.value[at]
        else:
            through = ".".join(keys[:depth])
            raise ConfigError(f"'{through}' is {shown(node.value)}, which holds no '{key}'", place)


def _own(node: Node) -> Node:
    """Return a shallow copy, so that an override of an alias changes one of its places only."""
    if isinstance(node.value, dict):
        return Node(dict(node.value), node.place)
    if isinstance(node.value, list):
        return Node(list(node.value), node.place)
    return node


def _as_mapping(node: Node) -> Node:
    """Return a bare name in a list, such as a backend, as the mapping it is short for."""
    if isinstance(node.value, str):
        return Node({"name": Entry(node.place, node)}, node.place)
    return node


def _item(items: list[Node], key: str, owner: str, place: Place) -> int:
    if key.isascii() and key.isdigit() and len(key) < 9:
        if int(key) < len(items):
            return int(key)
        raise ConfigError(f"'{owner}' has no item {key}; the last one is {len(items) - 1}", place)
    names = []
    for at, item in enumerate(items):
        name = _as_mapping(item).value
        entry = name.get("name") if isinstance(name, dict) else None
        if entry is not None and isinstance(entry.node.value, str):
            if entry.node.value == key:
                return at
            names.append(entry.node.value)
    raise ConfigError(f"'{owner}' has no item '{key}'. {did_you_mean(key, names)}", place)
