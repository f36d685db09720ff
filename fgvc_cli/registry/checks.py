"""What is checked before anything of a plugin is used. Each check raises `PluginError` with one line of cause."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from types import FunctionType
from typing import Any

import pluggy

from fgvc_cli import hookspecs
from fgvc_cli.errors import FgvcError, did_you_mean
from fgvc_cli.specs import API_VERSION, KINDS, BackboneSpec, ComponentSpec, Family, HeadSpec, OptimizerSpec

HOOKS = tuple(name for name, member in vars(hookspecs).items() if hasattr(member, f"{hookspecs.PROJECT}_spec"))
"""The names of all hooks, in the order of `fgvc_cli.hookspecs`."""

NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
PREFIX = re.compile(r"[a-z0-9][a-z0-9._+-]*/")
TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
FILE_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:(?!.*\.\.)[\w.-]+(/[\w.-]+)*\.toml")


class PluginError(FgvcError):
    """A plugin is not what it should be. The message is the cause alone; the record names the plugin."""


def check_hooks(module: Any, implementations: Sequence[tuple[str, pluggy.HookImpl]]) -> None:
    """Check that a plugin implements hooks that exist, each once, and that none lacks its mark.

    Args:
        module: the plugin.
        implementations: its hook implementations and the hooks they name, as pluggy found them.
    """
    names = [name for name, _ in implementations]
    for name, implementation in implementations:
        if name not in HOOKS:
            raise PluginError(f"it implements '{name}', which is no hook of fgvc.{did_you_mean(name, HOOKS)}")
        if names.count(name) > 1:
            raise PluginError(f"it implements '{name}' more than once")
        if implementation.wrapper or implementation.hookwrapper:
            raise PluginError(f"its '{name}' is a hook wrapper, which fgvc does not call")
    for name in HOOKS:
        member = getattr(module, name, None)
        unmarked = isinstance(member, FunctionType) and not hasattr(member, f"{hookspecs.PROJECT}_spec")
        if unmarked and name not in names:
            raise PluginError(f"its function '{name}' has no @hookimpl above it, so it would never be called")
    if not names:
        raise PluginError("it implements no hook: nothing in it is marked with @hookimpl")


def check_items(hook: str, returned: Any, wanted: type) -> list[Any]:
    """Check that a hook returned several specs of the right type, and return them as a list."""
    if returned is None or isinstance(returned, str | bytes) or not isinstance(returned, Iterable):
        raise PluginError(f"{hook} returned {_shown(returned)} instead of a list of {wanted.__name__}")
    items = list(returned)
    for item in items:
        if not isinstance(item, wanted):
            raise PluginError(f"{hook} returned {_shown(item)} where a {wanted.__name__} belongs")
    return items


def check_spec(spec: ComponentSpec, *, family_member: bool = False) -> None:
    """Check what a plugin says of one component; a member of a family is free in its name."""
    what = f"{spec.kind} {spec.name!r}"
    _check_api(what, spec.api)
    _check_text(what, spec)
    if not family_member and not NAME.fullmatch(spec.name):
        raise PluginError(f"{what}: a name is of lower-case letters, digits, '.', '_', '-' and '+'")
    if spec.kind == "tracker" and "." in spec.name:
        raise PluginError(f"{what}: the name of a tracker has no '.', for its settings are tracker.NAME.option")
    form = ("package:path.toml", FILE_TARGET) if spec.is_file else ("package.module:Name", TARGET)
    if not form[1].fullmatch(spec.target):
        raise PluginError(f"{what}: its target {spec.target!r} has not the form {form[0]!r}")
    if spec.options and not TARGET.fullmatch(spec.options):
        raise PluginError(f"{what}: its options {spec.options!r} have not the form 'package.module:Name'")
    _check_numbers(what, spec)


def check_family(family: Family) -> None:
    """Check what a plugin says of a family of names."""
    what = f"family {family.prefix!r}"
    _check_api(what, family.api)
    _check_text(what, family)
    if family.kind not in KINDS:
        raise PluginError(f"{what}: no kind of component is called {family.kind!r}")
    if not PREFIX.fullmatch(family.prefix):
        raise PluginError(f"{what}: a prefix is a lower-case name that ends in '/'")
    if not TARGET.fullmatch(family.resolver):
        raise PluginError(f"{what}: its resolver {family.resolver!r} has not the form 'package.module:function'")


def _check_api(what: str, api: Any) -> None:
    if not isinstance(api, int) or api < 1:
        raise PluginError(f"{what}: its API version is {api!r}, not a number from 1 up")
    if api != API_VERSION:
        mend = "upgrade fgvc-cli" if api > API_VERSION else "look for a newer release of the plugin"
        raise PluginError(
            f"{what} was written for version {api} of the plugin interface, and this fgvc speaks version "
            f"{API_VERSION}: {mend}"
        )


def _check_text(what: str, record: ComponentSpec | Family) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if field.type == "str" and not isinstance(value, str):
            raise PluginError(f"{what}: its {field.name} is {_shown(value)}, not text")


def _check_numbers(what: str, spec: ComponentSpec) -> None:
    if isinstance(spec, BackboneSpec):
        strides = spec.strides
        if not isinstance(strides, tuple) or not all(isinstance(s, int) and s > 0 for s in strides):
            raise PluginError(f"{what}: its strides are {_shown(strides)}, not a tuple of numbers from 1 up")
    if isinstance(spec, HeadSpec) and not (isinstance(spec.maps, int) and spec.maps >= 0):
        raise PluginError(f"{what}: its maps are {_shown(spec.maps)}, not a number from 0 up")
    if isinstance(spec, OptimizerSpec) and not (isinstance(spec.passes, int) and spec.passes >= 1):
        raise PluginError(f"{what}: its passes are {_shown(spec.passes)}, not a number from 1 up")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
