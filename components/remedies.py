"""What to do where a run was rejected or broken off, in the words of the command line and of the report alike."""

BROKEN_BOUNDS = "train a better one (recipe, epochs), or change the bounds in [evaluation] of the recipe."
FAILED_CHECKS = "mend the model's export, or change the limits in [infra] of the recipe."
REJECTED_DATA = "correct what is listed, each with its remedy, and run again: what was finished comes from the cache."
FAILED = "read what is said above, and the log of the run; then run again: what was finished comes from the cache."
BROKEN_OFF = "run again: what was finished comes from the cache, and training goes on after its last whole epoch."
