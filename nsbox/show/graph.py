"""The picture as a graph, for Graphviz: who is in what, who owns what, which cable leads where."""

from collections.abc import Iterator
from typing import Any

from .trees import endpoint, far_name
from .view import View, title

SHAPES = {"own": "circle", "shared": "box", "alone": "diamond"}


def values(view: View) -> dict[str, Any]:
    """What the template draws. Of the host's processes and the caller's namespaces only what leads somewhere."""
    own = set(view.picture["own"].values())
    edges = {"above": list(_above(view)), "cables": list(_cables(view)), "published": list(_published(view))}
    groups: list[dict[str, Any]] = []
    placed: set[int] = set()
    for group in view.groups:
        processes = [view.processes[pid] for pid in group["pids"]]
        if group["what"] == "host":
            processes = [one for one in processes if one["pid"] in view.targets]
        ids = dict.fromkeys(number for one in processes for number in one["namespaces"].values())
        mine = [number for number in ids if number not in own and number not in placed]
        placed |= set(mine)
        if processes:
            cells = [view.cell(number) for number in mine]
            groups.append({"title": title(group), "processes": processes, "cells": cells})
    ends = {number for rows in edges.values() for near, far, _ in rows for number in (near, far)}
    drawn = [one for group in groups for one in group["processes"]]
    return {
        **edges,
        "hostname": view.picture["hostname"],
        "shapes": SHAPES,
        "groups": groups,
        "loose": [view.cell(row["id"]) for row in view.named.values() if row["id"] in ends - placed],
        "inside": [(one["pid"], number) for one in drawn for number in one["namespaces"].values() if number in placed],
    }


def _above(view: View) -> Iterator[tuple[int, int, str]]:
    """Parents, and owners where these are not the caller's: all would own what is theirs."""
    own = view.picture["own"]
    for row in view.named.values():
        if row["id"] not in view.scope:
            continue
        if row["parent"] in view.named:
            yield row["parent"], row["id"], "parent"
        elif row["owner"] in view.named and row["owner"] != own.get("user"):
            yield row["owner"], row["id"], "owner"


def _cables(view: View) -> Iterator[tuple[int, int, str]]:
    for net in view.picture["nets"]:
        for link in net["links"]:
            peer = link["peer"]
            if peer and peer["net"] in view.scope and net["id"] in view.scope:
                if (net["id"], link["index"]) < (peer["net"], peer["index"]):
                    yield net["id"], peer["net"], f"{link['name']} = {far_name(link, view)}"


def _published(view: View) -> Iterator[tuple[int, int, str]]:
    own = view.picture["own"].get("net")
    for row in view.picture["published"]:
        if own in view.scope and row["net"] in view.scope:
            where = endpoint(row["host_address"], row["host_port"], row["proto"])
            yield own, row["net"], f"{where} to {row['pod_port']}"
