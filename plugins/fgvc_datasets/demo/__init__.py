"""The built-in dataset `demo`: twelve invented birds that differ only in small parts, drawn from a seed."""
