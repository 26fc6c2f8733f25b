"""How well the scores of an index agree with exact influence."""
