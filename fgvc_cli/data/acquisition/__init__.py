"""Choose, describe, download and check datasets."""
