"""The decode cache: uint8 images at training size, on disk, shared by processes and runs."""
