"""How a function of CEL is declared here: once, for the checker and for the evaluation.

The checker knows Kubernetes' own types (``net.IP``, ``kubernetes.Quantity``, …); when expressions
run, the CEL library cannot carry values of types that it does not know, so such a value is a map
with one entry whose key is the type's name. The checker sees to it that nobody looks inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel

T = cel.Type
Run = Callable[..., Any]


@dataclass(frozen=True)
class Overload:
    """``takes`` begins with the receiver, if the function is a member."""

    id: str
    gives: Any
    takes: tuple[Any, ...]
    member: bool = False


@dataclass(frozen=True, eq=False)
class Function:
    """``run`` is called with plain Python values; None: the CEL library has the implementation."""

    name: str
    overloads: tuple[Overload, ...]
    run: Run | None = None


class Opaque:
    """A type that the checker knows by name and the evaluation as a tagged map."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.type = T.AbstractType(name)

    def wrap(self, value: Any) -> dict[str, Any]:
        return {self.name: value}

    def unwrap(self, value: Any) -> Any:
        """Raises ValueError if it is of another type (possible behind ``dyn()`` only)."""
        if not self.holds(value):
            raise ValueError(f"no such overload: this is no {self.name}")
        return value[self.name]

    def holds(self, value: Any) -> bool:
        return isinstance(value, Mapping) and len(value) == 1 and self.name in value


Declared = tuple[str, Any, tuple[Any, ...]]
"""An overload's name, what it gives and what it takes."""


def member(name: str, run: Run | None, *overloads: Declared) -> Function:
    return Function(name, tuple(Overload(*o, member=True) for o in overloads), run)


def plain(name: str, run: Run | None, *overloads: Declared) -> Function:
    return Function(name, tuple(Overload(*o) for o in overloads), run)


def for_checking(functions: Iterable[Function]) -> list[Any]:
    """Declarations with the true types. Functions of one name are one declaration."""
    by_name: dict[str, list[Any]] = {}
    for function in functions:
        by_name.setdefault(function.name, []).extend(
            cel.Overload(o.id, o.gives, list(o.takes), o.member) for o in function.overloads
        )
    return [cel.FunctionDecl(name, overloads) for name, overloads in by_name.items()]


def for_running(functions: Iterable[Function], opaque: Iterable[Opaque]) -> list[Any]:
    """The implementations, one for each combination of kinds: the library tells kinds apart only,
    and matches ``dyn`` with nothing."""
    names = {o.type.name() for o in opaque}
    by_name: dict[str, dict[tuple[Any, ...], Any]] = {}
    for function in functions:
        if function.run is None:
            continue
        found = by_name.setdefault(function.name, {})
        for overload in function.overloads:
            for takes in _kinds(overload.takes, names):
                key = (overload.member, *(kind.name() for kind in takes))
                name = f"{overload.id}_{len(found)}"
                found.setdefault(
                    key, cel.Overload(name, T.DYN, list(takes), overload.member, function.run)
                )
    return [cel.FunctionDecl(name, list(found.values())) for name, found in by_name.items()]


_MAP = T.Map(T.STRING, T.DYN)
_LIST = T.List(T.DYN)
_ANY = (
    T.INT, T.UINT, T.DOUBLE, T.BOOL, T.STRING, T.BYTES, T.DURATION, T.TIMESTAMP, T.NULL, _LIST,
    _MAP,
)  # fmt: skip


def _kinds(takes: tuple[Any, ...], opaque: set[str]) -> Iterator[tuple[Any, ...]]:
    """Every combination of kinds in which values of these types can come."""
    if not takes:
        yield ()
        return
    first, rest = takes[0], takes[1:]
    for kind in _kinds_of(first, opaque):
        for others in _kinds(rest, opaque):
            yield (kind, *others)


def _kinds_of(given: Any, opaque: set[str]) -> tuple[Any, ...]:
    name = given.name()
    if given == T.DYN:
        return _ANY
    if name in opaque or name.lower().startswith("map"):
        return (_MAP,)
    return (_LIST,) if name.lower().startswith("list") else (given,)
