"""Python as it is where the extra `tensorflow` was never installed: its packages are neither found nor listed."""

import re
import sys
from importlib.machinery import PathFinder

MODULES = (
    "tensorflow",
    "tensorflow_datasets",
    "tensorboard",
    "clu",
    "cv2",
    "simplejpeg",
    "array_record",
    "importlib_resources",
)
PACKAGES = re.compile(r"tensorflow|tensorboard|clu$|opencv|array.record|importlib.resources")


class WithoutTensorFlow:
    """The finder of sys.path but for these modules."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """None for what is not installed."""
        return None if name.partition(".")[0] in MODULES else PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(context=None):
        """All packages but those."""
        found = PathFinder.find_distributions() if context is None else PathFinder.find_distributions(context)
        return (package for package in found if not PACKAGES.match(package.metadata["Name"] or ""))

    @staticmethod
    def invalidate_caches():
        """As PathFinder."""
        PathFinder.invalidate_caches()


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow
