"""Write the package of a new plugin: complete, installable, working, and with tests that pass."""

from fgvc_cli.testing.scaffolding.names import PluginNames, plugin_names, refuse_taken, scaffold_kind
from fgvc_cli.testing.scaffolding.write import Scaffold, write_plugin

__all__ = ["PluginNames", "Scaffold", "plugin_names", "refuse_taken", "scaffold_kind", "write_plugin"]
