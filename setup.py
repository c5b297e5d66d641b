"""Installs the checkout's folders as one package, `mnist_tfx`; the metadata is in pyproject.toml.

`mnist_tfx` has no folder of its own: `mnist_tfx.pipeline` is `pipeline/`, and so on. So no folder takes a name that
another distribution has (there is a `kubeflow` on PyPI). Beam ships workers their code with `--setup_file=setup.py`.
"""

from setuptools import find_packages, setup

FOLDERS = ("components", "contract", "kubeflow", "pipeline", "schemas", "serving")

setup(
    packages=[f"mnist_tfx.{name}" for name in find_packages() if name.split(".")[0] in FOLDERS],
    package_dir={f"mnist_tfx.{folder}": folder for folder in FOLDERS},
)
