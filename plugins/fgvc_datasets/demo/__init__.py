"""The built-in data set `demo`: twelve invented birds that differ only in small parts, drawn from a seed."""
