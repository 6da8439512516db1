"""Bytes on the disk: atomic writes and locks, and the formats of tensors. Nothing here knows a model."""
