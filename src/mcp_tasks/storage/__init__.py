"""Bytes under keys: the storage protocol and its backends. Nothing here knows what a task is."""
