"""Measurements of the engine on the machine at hand: `orchestrator bench`.

A benchmark is one file with one command; `command.BENCHMARKS` is the one list.
"""
