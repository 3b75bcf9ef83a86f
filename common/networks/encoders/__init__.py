"""Pretrained encoders: their weights come from a folder, a local cache or a consented download, never from chance."""
