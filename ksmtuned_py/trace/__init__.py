"""Traces: a file of what a host looked like and what was decided, tick by tick.

JSON Lines, plain or in frames of zstd. The first line is a header: schema, version, config. Each further line is one
tick: snapshot and decision. This is schema 1. Fields may be added, never changed or taken away without another number.
"""
