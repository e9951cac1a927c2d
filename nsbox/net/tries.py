"""Whether links can be made at all: each is made where it ends with the process. For a child in a network namespace
of its own."""

from . import inside, links

_BRIDGE, _ADDRESS = "nsbdoctor0", "10.255.255.1/24"


def veth() -> None:
    """Make a pair of links. Raises what the kernel says."""
    with inside.netlink() as nl:
        nl.link("add", ifname="nsbdoctor1", kind="veth", peer={"ifname": "nsbdoctor2"})


def bridge() -> None:
    """Make a bridge with an address, up, as a network of nsbox has. Raises what the kernel says."""
    links.make_bridge(_BRIDGE, "nsbox:doctor", [_ADDRESS], 1500)


KINDS = {"veth": veth, "bridge": bridge}
