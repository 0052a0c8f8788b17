"""IP addresses, CIDRs: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-ip-address-library"""

from __future__ import annotations

import ipaddress as ip
from collections.abc import Callable
from typing import Any

from controller.apiserver.cel.functions import Function, Opaque, T, member, plain

IP = Opaque("net.IP")
CIDR = Opaque("net.CIDR")
Address = ip.IPv4Address | ip.IPv6Address
Network = ip.IPv4Interface | ip.IPv6Interface
_BROADCAST = ip.IPv4Address("255.255.255.255")


def parse_ip(text: str) -> Address:
    """Raises ValueError. Zones and IPv4 addresses in IPv6 form are refused, as in Kubernetes."""
    found = ip.ip_address(text)
    if "%" in text:
        raise ValueError(f"IP address {text!r} with zone value is not allowed")
    if isinstance(found, ip.IPv6Address) and found.ipv4_mapped is not None:
        raise ValueError(f"IPv4-mapped IPv6 address {text!r} is not allowed")
    return found


def parse_cidr(text: str) -> Network:
    """Raises ValueError."""
    address, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit() or str(int(length)) != length:
        raise ValueError(f"network address parse error during conversion from string: {text!r}")
    return ip.ip_interface((parse_ip(address), int(length)))


def _ip(value: Any) -> Any:
    """Of a string, or a CIDR's address."""
    if isinstance(value, str):
        return IP.wrap(str(parse_ip(value)))
    return IP.wrap(str(_network(value).ip))


def _cidr(text: str) -> Any:
    return CIDR.wrap(str(parse_cidr(text)))


def _address(value: Any) -> Address:
    return ip.ip_address(IP.unwrap(value))


def _network(value: Any) -> Network:
    return ip.ip_interface(CIDR.unwrap(value))


def _is_canonical(text: str) -> bool:
    return str(parse_ip(text)) == text


def _parses(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except ValueError:
            return False
        return True

    return check


def _is_global_unicast(value: Any) -> bool:
    """As Go has it: whatever is nothing special."""
    found = _address(value)
    special = found.is_unspecified or found.is_loopback or found.is_multicast or found.is_link_local
    return not special and found != _BROADCAST


def _is_link_local_multicast(value: Any) -> bool:
    found = _address(value)
    prefix = "224.0.0.0/24" if found.version == 4 else "ff02::/16"
    local = found in ip.ip_network(prefix)
    if isinstance(found, ip.IPv6Address):  # whatever its flags
        return found.packed[0] == 0xFF and found.packed[1] & 0x0F == 2
    return local


def _contains_ip(network: Any, value: Any) -> bool:
    address = parse_ip(value) if isinstance(value, str) else _address(value)
    return address in _network(network).network


def _contains_cidr(network: Any, value: Any) -> bool:
    inner = parse_cidr(value) if isinstance(value, str) else _network(value)
    outer = _network(network).network
    if inner.version != outer.version or inner.network.prefixlen < outer.prefixlen:
        return False
    return inner.ip in outer


def _masked(value: Any) -> Any:
    return CIDR.wrap(str(_network(value).network))


def _prefix_length(value: Any) -> int:
    return _network(value).network.prefixlen


def text_of(value: Any) -> str:
    """``string()`` of an address or a CIDR."""
    return str(IP.unwrap(value) if IP.holds(value) else CIDR.unwrap(value))


_A, _C, _S = IP.type, CIDR.type, T.STRING
FUNCTIONS: tuple[Function, ...] = (
    plain("ip", _ip, ("string_to_ip", _A, (_S,))),
    member("ip", _ip, ("cidr_ip", _A, (_C,))),
    plain("isIP", _parses(parse_ip), ("is_ip", T.BOOL, (_S,))),
    plain("ip.isCanonical", _is_canonical, ("ip_is_canonical", T.BOOL, (_S,))),
    member("family", lambda v: _address(v).version, ("ip_family", T.INT, (_A,))),
    member("isUnspecified", lambda v: _address(v).is_unspecified,
           ("ip_is_unspecified", T.BOOL, (_A,))),
    member("isLoopback", lambda v: _address(v).is_loopback, ("ip_is_loopback", T.BOOL, (_A,))),
    member("isLinkLocalMulticast", _is_link_local_multicast,
           ("ip_is_link_local_multicast", T.BOOL, (_A,))),
    member("isLinkLocalUnicast", lambda v: _address(v).is_link_local,
           ("ip_is_link_local_unicast", T.BOOL, (_A,))),
    member("isGlobalUnicast", _is_global_unicast, ("ip_is_global_unicast", T.BOOL, (_A,))),
    plain("cidr", _cidr, ("string_to_cidr", _C, (_S,))),
    plain("isCIDR", _parses(parse_cidr), ("is_cidr", T.BOOL, (_S,))),
    member("containsIP", _contains_ip, ("cidr_contains_ip_string", T.BOOL, (_C, _S)),
           ("cidr_contains_ip_ip", T.BOOL, (_C, _A))),
    member("containsCIDR", _contains_cidr, ("cidr_contains_cidr_string", T.BOOL, (_C, _S)),
           ("cidr_contains_cidr", T.BOOL, (_C, _C))),
    member("prefixLength", _prefix_length, ("cidr_prefix_length", T.INT, (_C,))),
    plain("string", text_of, ("ip_to_string", _S, (_A,)), ("cidr_to_string", _S, (_C,))),
    member("masked", _masked, ("cidr_masked", _C, (_C,))),
)  # fmt: skip
