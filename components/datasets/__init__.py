"""Getting the datasets: fetched, verified against published sums, and prepared as TFDS datasets."""
