"""A model server for machines without TF Serving; it answers as TF Serving does."""
