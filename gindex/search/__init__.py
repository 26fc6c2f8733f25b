"""Search: one ask, one result; the funnel, candidates, hits, outliers."""
