"""The dataset `demo`: twelve synthetic bird species that differ only in small parts, generated from a seed."""
