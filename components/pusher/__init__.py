"""The last gate: what goes live. Imports no TensorFlow."""

# In the log of the Pusher's task, where a platform tells no properties of artifacts; the first as TFX's own has it.
PUSHED, NOT_PUSHED = "Model pushed to", "Model not pushed:"
