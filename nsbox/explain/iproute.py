"""Messages of netlink as lines of ip(8), tc(8) and conntrack(8): what does the same by hand.

Used in the processes that are told about, inside other roots: nothing is imported or opened later.
"""

import os
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from . import netlink
from .netlink import Message
from .teller import Told

_AF_INET6 = 10
_IFF_UP, _IFA_F_NODAD, _SCOPE_HOST, _TC_H_ROOT = 0x1, 0x02, 254, 0xFFFF_FFFF
_PROTOCOLS = {4: "static"}  # 3, boot, is what ip(8) says by itself
_TICKS_A_SECOND = 15_625_000  # PSCHED_SHIFT of the kernel: a tick is 64 ns
_TICKS_A_MILLISECOND = _TICKS_A_SECOND // 1000
_LOSS_OF_ALL = 0xFFFF_FFFF

Speak = Callable[[Message, Mapping[str, str]], list[str]]


def lines(told: Told) -> list[str]:
    """The line that stands for the message; in the network namespace that it was sent in."""
    message = netlink.parse(os.fsencode(told.values[1]))
    return _SPEAK[message.kind](message, told.places) if message is not None else []


def _link_of(number: int, places: Mapping[str, str]) -> str:
    return shlex.quote(places.get(f"link {number}", f"if{number}"))


def _link(message: Message, places: Mapping[str, str]) -> list[str]:
    known = message.attributes
    if kind := netlink.kind_of(message):
        return [_new_link(kind, message, places)]
    words = [f"ip link set dev {_link_of(message.link, places)}"]
    if "IFLA_IFNAME" in known:
        words.append(f"name {shlex.quote(known['IFLA_IFNAME'])}")
    if "IFLA_IFALIAS" in known:
        words.append(f"alias {shlex.quote(known['IFLA_IFALIAS'])}")
    if "IFLA_MASTER" in known:
        words.append(f"master {_link_of(known['IFLA_MASTER'], places)}")
    if message.fields["ifi_change"] & _IFF_UP:
        words.append("up" if message.fields["ifi_flags"] & _IFF_UP else "down")
    return [" ".join(words)]


def _new_link(kind: str, message: Message, places: Mapping[str, str]) -> str:
    number = f" index {message.link}" if message.link else ""
    line = f"ip link add {_end(message.attributes)}{number} type {kind}"
    if kind == "bridge":
        data = message.attributes["IFLA_LINKINFO"].get("IFLA_INFO_DATA", {})
        return line + "".join(f" mcast_snooping {value}" for value in data.values())
    peer = netlink.peer_of(message)
    netns = places.get("netns", "")
    there = " netns 1" if netns == "0" else f" netns {netns}" if netns else ""
    return f"{line} peer {_end(peer)}{there}" if peer else line


def _end(attributes: Mapping[str, Any]) -> str:
    words = [f"name {shlex.quote(attributes['IFLA_IFNAME'])}"]
    if "IFLA_ADDRESS" in attributes:
        words.append(f"address {attributes['IFLA_ADDRESS']}")
    if "IFLA_MTU" in attributes:
        words.append(f"mtu {attributes['IFLA_MTU']}")
    return " ".join(words)


def _no_link(message: Message, places: Mapping[str, str]) -> list[str]:
    return [f"ip link del dev {_link_of(message.link, places)}"]


def _address(message: Message, places: Mapping[str, str]) -> list[str]:
    known = message.attributes
    address = known.get("IFA_LOCAL") or known.get("IFA_ADDRESS")
    words = [f"ip address add {address}/{message.fields['ifa_prefixlen']} dev {_link_of(message.link, places)}"]
    if "IFA_LABEL" in known:
        words.append(f"label {shlex.quote(known['IFA_LABEL'])}")
    if message.fields["ifa_scope"] == _SCOPE_HOST:
        words.append("scope host")
    if known.get("IFA_FLAGS", 0) & _IFA_F_NODAD:
        words.append("nodad")
    if known.get("IFA_CACHEINFO", {}).get("ifa_prefered", 1) == 0:
        words.append("preferred_lft 0")
    return [" ".join(words)]


def _route(message: Message, places: Mapping[str, str]) -> list[str]:
    known, fields = message.attributes, message.fields
    v6 = "-6 " if fields["rtm_family"] == _AF_INET6 else ""
    words = [f"ip {v6}route add {known.get('RTA_DST', 'default')}"]
    if "RTA_DST" in known:
        words[0] += f"/{fields['rtm_dst_len']}"
    if "RTA_GATEWAY" in known:
        words.append(f"via {known['RTA_GATEWAY']}")
    if "RTA_OIF" in known:
        words.append(f"dev {_link_of(known['RTA_OIF'], places)}")
    if fields["rtm_protocol"] in _PROTOCOLS:
        words.append(f"proto {_PROTOCOLS[fields['rtm_protocol']]}")
    if "RTA_PRIORITY" in known:
        words.append(f"metric {known['RTA_PRIORITY']}")
    return [" ".join(words)]


def _qdisc(message: Message, places: Mapping[str, str]) -> list[str]:
    fields, kind = message.fields, netlink.kind_of(message)
    parent = "root" if fields["tcm_parent"] == _TC_H_ROOT else f"parent {_handle(fields['tcm_parent'])}"
    options = message.attributes.get("TCA_OPTIONS", {})
    if kind == "netem":
        words = _netem(options)
    else:
        about = options.get("TCA_TBF_PARMS", {})
        burst = round(about.get("buffer", 0) * about.get("rate", 0) / _TICKS_A_SECOND)
        words = f"rate {about.get('rate', 0)}bps burst {burst} limit {about.get('limit', 0)}"
    return [f"tc qdisc add dev {_link_of(message.link, places)} {parent} handle {_handle(fields['tcm_handle'])} "
            f"{kind} {words}"]  # fmt: skip


def _netem(options: Mapping[str, int]) -> str:
    words = [f"limit {options.get('limit', 0)}"]
    if options.get("latency"):
        words.append(f"delay {options['latency'] / _TICKS_A_MILLISECOND:g}ms")
    if options.get("loss"):
        words.append(f"loss {options['loss'] / _LOSS_OF_ALL * 100:g}%")
    return " ".join(words)


def _handle(number: int) -> str:
    return f"{number >> 16:x}:{number & 0xFFFF or '':x}" if number & 0xFFFF else f"{number >> 16:x}:"


def _no_qdisc(message: Message, places: Mapping[str, str]) -> list[str]:
    return [f"tc qdisc del dev {_link_of(message.link, places)} root"]


def _no_flow(message: Message, _places: Mapping[str, str]) -> list[str]:
    way = message.attributes.get("CTA_TUPLE_ORIG", {})
    address, ends = way.get("CTA_TUPLE_IP", {}), way.get("CTA_TUPLE_PROTO", {})
    proto = {6: "tcp", 17: "udp"}.get(ends.get("CTA_PROTO_NUM", 0), "")
    source, target = list(address.values())[:2] or ("?", "?")
    return [f"conntrack -D -p {proto} -s {source} -d {target} --sport {ends.get('CTA_PROTO_SRC_PORT')} "
            f"--dport {ends.get('CTA_PROTO_DST_PORT')}"]  # fmt: skip


_SPEAK: dict[int, Speak] = {
    netlink.RTM_NEWLINK: _link, netlink.RTM_DELLINK: _no_link, netlink.RTM_NEWADDR: _address,
    netlink.RTM_NEWROUTE: _route, netlink.RTM_NEWQDISC: _qdisc, netlink.RTM_DELQDISC: _no_qdisc,
    netlink.CT_DELETE: _no_flow,
}  # fmt: skip
