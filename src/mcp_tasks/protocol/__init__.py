"""A task on the wire: pure functions from a record to JSON, one module for each revision of MCP.

Nothing here reads a store or knows the SDK. Times, durations and names of the wire stop here.
"""
