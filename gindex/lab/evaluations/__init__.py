"""Is it true? Scores against retraining, and against what is known of the documents."""
