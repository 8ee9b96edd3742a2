"""Run by a Python that has timm: the outputs of exported folders, FOLDER/images.npy -> FOLDER/timm.npz, for each argument.

It imports neither jax nor this package.
"""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np


class _AnyName(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Empty(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _AnyName(name, (), {})


class _StandIn:
    """Empty modules for torchvision, which timm imports for its augmentation and which is as large as PyTorch."""

    def find_spec(self, name, path=None, target=None):
        return (
            importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "torchvision" else None
        )

    def create_module(self, spec):
        return _Empty(spec.name)

    def exec_module(self, module):
        pass


def main(folders):
    """Write the features and logits of each folder."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.insert(0, _StandIn())
    import timm
    import torch

    for folder in map(Path, folders):
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        config = model.pretrained_cfg
        mean, std = (torch.tensor(config[name]).reshape(1, -1, 1, 1) for name in ("mean", "std"))
        images = torch.tensor(np.load(folder / "images.npy")).permute(0, 3, 1, 2).float() / 255
        assert tuple(config["input_size"]) == tuple(images.shape[1:])
        with torch.no_grad():
            inputs = (images - mean) / std
            features = model.forward_head(model.forward_features(inputs), pre_logits=True)
            logits = model(inputs)
        shown = {"num_features": model.num_features, "num_classes": model.num_classes, "crop_pct": config["crop_pct"]}
        np.savez(folder / "timm.npz", features=features.numpy(), logits=logits.numpy(), **shown)
    print(f"timm {timm.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main(sys.argv[1:])
