"""Building an index: what it will cost, the state of an unfinished build, and the phases."""
