"""Stores of clustered vectors, and queries of them."""

from clustered import make_reader as make_reader
from clustered import projection as projection
from clustered import queries as queries
from clustered import reader as reader
from clustered import scores as scores
