"""Writing a new plugin: a small, complete package that installs, is listed, works and passes its own tests."""

from fgvc_cli.testing.scaffolding.names import PluginNames, plugin_names, refuse_taken, scaffold_kind
from fgvc_cli.testing.scaffolding.write import Scaffold, write_plugin

__all__ = ["PluginNames", "Scaffold", "plugin_names", "refuse_taken", "scaffold_kind", "write_plugin"]
