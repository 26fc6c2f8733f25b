"""Random projections to compare the count sketch with."""
