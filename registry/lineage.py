"""The lineage of a version as a drawing: columns from data and run to endpoints, with a table twin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from registry.models import Artifact, Format, Version

WIDTH, HEIGHT, GAP_X, GAP_Y, PAD = 150, 46, 34, 14, 4


@dataclass
class Node:
    """A box of the drawing; `column` counts from the left."""

    key: str
    kind: str
    label: str
    sub: str
    column: int
    url: str = ""
    here: bool = False
    x: int = 0
    y: int = 0
    parents: list[str] = field(default_factory=list)

    @property
    def middle(self) -> int:
        return self.y + HEIGHT // 2

    @property
    def right(self) -> int:
        return self.x + WIDTH


@dataclass
class Drawing:
    nodes: list[Node]
    edges: list[dict[str, Any]]
    width: int
    height: int


def _artifact_column(artifact: Artifact) -> int:
    if artifact.is_variant:
        return 4
    return 2 if artifact.format == Format.SOURCE else 3


def _nodes(version: Version, artifacts: list[Artifact], datasets: list[Any]) -> list[Node]:
    here = f"v{version.pk}"
    nodes = [Node(f"d{row.pk}", _("Dataset"), row.name, row.sha256[:12], 0) for row in datasets]
    origin = version.get_origin_display()
    run = Node("run", _("Origin"), origin, version.mlflow_run_id[:12] or version.framework, 0)
    nodes.append(run)
    label = _("%(model)s version %(n)d") % {"model": version.model.name, "n": version.number}
    nodes.append(Node(here, _("Version"), label, version.framework, 1, here=True, parents=[node.key for node in nodes]))
    url = reverse("version-tab", args=[version.pk, "artifacts"])
    for row in artifacts:
        parent = f"a{row.parent_id}" if row.parent_id else here
        nodes.append(
            Node(
                f"a{row.pk}",
                _("Artifact"),
                row.title,
                row.sha256[:12],
                _artifact_column(row),
                url,
                parents=[parent],
            )
        )
        nodes += [_deployment(deployment, f"a{row.pk}") for deployment in row.deployments.all()]
    return nodes


def _deployment(deployment: Any, parent: str) -> Node:
    endpoint = deployment.endpoint
    sub = f"{deployment.get_state_display()} · {deployment.weight} %"
    url = reverse("endpoint", args=[endpoint.name])
    return Node(f"p{deployment.pk}", _("Deployment"), endpoint.name, sub, 5, url, parents=[parent])


def draw(version: Version, artifacts: list[Artifact], datasets: list[Any]) -> Drawing:
    """Places the boxes in columns (empty ones closed up) and joins them with curves."""
    nodes = _nodes(version, artifacts, datasets)
    used = sorted({node.column for node in nodes})
    rows = {column: [node for node in nodes if node.column == column] for column in used}
    tallest = max(len(column) for column in rows.values())
    height = tallest * (HEIGHT + GAP_Y) - GAP_Y + 2 * PAD
    for index, column in enumerate(used):
        members = rows[column]
        top = (height - len(members) * (HEIGHT + GAP_Y) + GAP_Y) // 2
        for row, node in enumerate(members):
            node.x, node.y = PAD + index * (WIDTH + GAP_X), top + row * (HEIGHT + GAP_Y)
    by_key = {node.key: node for node in nodes}
    edges = []
    for node in nodes:
        for parent in (by_key[key] for key in node.parents if key in by_key):
            bend = (parent.right + node.x) // 2
            path = f"M{parent.right} {parent.middle}C{bend} {parent.middle} {bend} {node.middle} {node.x} {node.middle}"
            edges.append({"path": path, "source": parent, "target": node})
    return Drawing(nodes, edges, len(used) * (WIDTH + GAP_X) - GAP_X + 2 * PAD, height)
