"""The one path from a document's tokens to its vector, and to its exact influence."""
