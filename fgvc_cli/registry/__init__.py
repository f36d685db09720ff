"""The registry: finds plugins, keeps a broken one from hurting anything else, and resolves names to components."""

from fgvc_cli.registry.lookup import Registry, get_registry
from fgvc_cli.registry.records import Component, PluginRecord, RegisteredFamily

__all__ = ["Component", "PluginRecord", "RegisteredFamily", "Registry", "get_registry"]
