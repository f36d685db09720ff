"""Hold the components of plugins to their contracts at run time.

The host builds every component with `make`. What it calls from then on is attributed to the component if it raises, and
checked if it returns, so that an error names the component, its distribution and version, what was expected and what
came instead. Built-in components are covered by their tests and are not checked, except for explainers, which meet
classifiers of any plugin.
"""

from fgvc_cli.enforcement.attribution import ComponentError, attributed, attributed_to, expect_type, violation
from fgvc_cli.enforcement.making import make

__all__ = ["ComponentError", "attributed", "attributed_to", "expect_type", "make", "violation"]
