"""The dataset `shards`: images in tar files (WebDataset shards), local or in an object store."""
