"""Steps that are carried out by turns, row by row, where whole maps would take too much memory.

A convolution of many channels and the pool behind it, or the first blocks of a network of depthwise
layers, make maps that are far larger than what goes in or comes out. In a *chain* each step writes
a row as soon as the rows that it takes are there, and of the maps between only a *window* is kept:
as many rows as the kernel that reads it is high. Nothing is computed twice.
"""

from distillnet.engine.by_rows.chains import BY_ROWS, chain_of
from distillnet.engine.by_rows.planning import with_chains
from distillnet.engine.by_rows.source import chain_source

__all__ = ["BY_ROWS", "chain_of", "chain_source", "with_chains"]
