"""The built-in backbones: five by name, and `timm/<any model with intermediate maps>`."""
