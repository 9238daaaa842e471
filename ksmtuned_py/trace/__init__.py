"""Traces: what a host looked like, and what was decided, tick by tick, in a file.

JSON Lines, plain or in frames of zstd. The first line is a header: schema, version, config. Each further line is one
tick: snapshot and decision. Schema 1; fields may be added, never changed or taken away without another number.
"""
