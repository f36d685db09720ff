"""Build components, and check what their methods return."""

from __future__ import annotations

import copyreg
import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch

from fgvc_cli.enforcement import backbone, dataset, explainer, exporter, head, launcher, optimizer
from fgvc_cli.enforcement.attribution import RECORD, Check, ComponentError, Record, attribute, attributed, described
from fgvc_cli.registry import Component
from fgvc_cli.specs import Kind

Contract = TypeVar("Contract")

BUILT: Mapping[Kind, Callable[[Any, Record], None]] = {
    "backbone": backbone.built,
    "dataset": dataset.built,
}
"""Checks of an instance once it is built."""

CALLS: Mapping[Kind, Mapping[str, Check]] = {
    "backbone": backbone.CALLS,
    "head": head.CALLS,
    "optimizer": optimizer.CALLS,
    "dataset": dataset.CALLS,
    "explainer": explainer.CALLS,
    "exporter": exporter.CALLS,
    "launcher": launcher.CALLS,
}
"""Checks of what methods return, by their name."""


def make(component: Component, contract: Callable[..., Contract], **arguments: Any) -> Contract:
    """Build a component, checked from then on.

    Args:
        component: from the registry.
        contract: base class of its kind.
        arguments: for its target.

    Raises:
        ComponentError: it raises, or is not an instance of the base class.
        FgvcError: its target cannot be imported or does not take these arguments.
    """
    if not _is_checked(component):
        return _instance(component.make(**arguments), contract, component)
    facts = {name: value for name, value in arguments.items() if isinstance(value, int)}
    if "backbone" in arguments:
        facts["maps"] = len(arguments["backbone"].maps)
    record = Record(component, facts)
    with attributed(component, "its constructor"):
        if component.kind == "optimizer":
            optimizer.check_options(component)
        instance = _instance(component.make(**arguments), contract, component)
        _check_calls(instance, record)
        if component.kind in BUILT:
            BUILT[component.kind](instance, record)
    return instance


def _is_checked(component: Component) -> bool:
    return not component.builtin or component.kind == "explainer"


def _instance(thing: Any, contract: Callable[..., Contract], component: Component) -> Contract:
    if not isinstance(thing, cast(type, contract)):
        raise ComponentError(
            f"{component.title} breaks its contract: {component.spec.target}: expected a "
            f"{cast(type, contract).__name__}, got {described(thing)}. Please report this to its author"
        )
    return cast(Contract, thing)


def _check_calls(instance: Any, record: Record) -> None:
    """Give an instance a subclass of its class in which the methods of its contract are checked.

    A subclass, unlike wrapped methods of the instance, leaves the names of weights alone; copies of the instance have
    its own class.
    """
    plain = type(instance)

    def members(namespace: dict[str, Any]) -> None:
        namespace.update(
            {
                "__slots__": (),
                "__module__": plain.__module__,
                "__qualname__": plain.__qualname__,
                "__doc__": plain.__doc__,
                "__reduce_ex__": _reduce,
                RECORD: record,
            }
        )
        for name, check in CALLS.get(record.component.kind, {}).items():
            if (method := getattr(plain, name, None)) is not None:
                takes_self = not isinstance(inspect.getattr_static(plain, name), staticmethod | classmethod)
                method = method if takes_self else _ignoring_self(method)
                namespace[name] = _checked(method, check, record.component, f"{name}()")

    # A frozen dataclass refuses the ordinary assignment.
    object.__setattr__(instance, "__class__", types.new_class(plain.__name__, (plain,), exec_body=members))


def _ignoring_self(method: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(method)(lambda _, *args, **kwargs: method(*args, **kwargs))


def _checked(method: Callable[..., Any], check: Check, component: Component, call: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return method(self, *args, **kwargs)
        try:
            return check(self, method(self, *args, **kwargs), *args, **kwargs)
        except BaseException as error:
            attribute(error, component, call)
            raise

    return checked


def _reduce(self: Any, protocol: Any) -> Any:
    """Pickle or copy an instance as one of its own class."""
    (plain,) = type(self).__bases__
    reduced: Any = plain.__reduce_ex__(self, protocol)  # type: ignore[call-arg]
    if isinstance(reduced, str):
        return reduced
    function, arguments, *rest = reduced
    if function is copyreg.__newobj__:  # type: ignore[attr-defined]
        function = _new  # pickle refuses the other one for another class than that of the instance
    return function, tuple(plain if each is type(self) else each for each in arguments), *rest


def _new(cls: type, *arguments: Any) -> Any:
    return cls.__new__(cls, *arguments)
