"""What could not be seen, in words."""

from .picture import Picture


def lines(picture: Picture) -> list[str]:
    """One line for each kind of thing that could not be read."""
    found = []
    for row in picture["unread"]:
        thing, many = ("namespace", "s") if row["what"] in ("owner", "inside") else ("process", "es")
        count = f"{len(row['pids'])} {thing}{many * (len(row['pids']) != 1)}"
        found.append(f"not seen: {row['what']} of {count} ({row['why']})")
    return found
