"""The decode cache: decoded and resized images on disk, one LMDB environment per dataset and image size."""
