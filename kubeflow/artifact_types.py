"""What the pipeline's file says of artifact types, and TFX does not know by itself."""

# Types of our own, whose names are no paths to import their classes by: those paths.
OUR_TYPES = {
    "mnist_tfx.DataBlessing": "mnist_tfx.components.data_gate.component.DataBlessing",
    "system.HTML": "mnist_tfx.components.report.artifact.HTML",
}
ONE_FILE_TYPES = ("system.HTML",)  # at whose address lies a file, and no folder
