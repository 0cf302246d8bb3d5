"""Build networks by name: torchvision's, timm's, the built-in ones, or the user's own factory."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from autoslim_cli.errors import UsageError, install
from autoslim_cli.near import hint
from autoslim_cli.own_code import load_factory
from autoslim_cli.recipe.schema import ModelSettings

Factory = Callable[..., nn.Module]


def build(model: ModelSettings, directory: Path = Path()) -> nn.Module:
    """Build a network at its base width, freshly initialised from torch's global generator.

    `./net.py:factory` is looked up relative to `directory`. Raises UsageError naming model.name or model.args.
    """
    factory = _factory(model.name, directory)
    try:
        network = factory(**({"num_classes": model.classes} if model.classes else {}), **model.args)
    except UsageError:
        raise
    except Exception as error:  # whatever the factory raises, its arguments are the user's
        reason = (str(error).strip().splitlines() or [""])[0]
        hint = (
            f"; it is called with num_classes={model.classes} (model.classes): let it take that, or any **kwargs"
            if isinstance(error, TypeError) and not _takes(factory, "num_classes")
            else ""
        )
        raise UsageError(f"model.args: {model.name} cannot be built: {type(error).__name__}: {reason}{hint}") from None
    if not isinstance(network, nn.Module):
        raise UsageError(f"model.name: {model.name} returned {type(network).__name__}, not an nn.Module")
    _set_strides(network, model.strides)
    return network


def _takes(factory: Factory, argument: str) -> bool:
    """Tell whether a factory takes an argument by its name, as far as that can be told."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return True
    return argument in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def is_known(name: str) -> bool:
    """Tell whether a model name stands for a network that autoslim, torchvision or timm lists, whatever else it is."""
    return name.startswith(tuple(_LISTED))


def _factory(name: str, directory: Path) -> Factory:
    """Return the factory that a model name stands for."""
    for prefix, find in _LISTED.items():
        if name.startswith(prefix):
            return _without_loading(name, find(name.removeprefix(prefix)))
    if ":" in name:
        return load_factory(name, directory, "model.name")
    raise UsageError(
        f"model.name: {name!r} is neither torchvision/NAME, timm/NAME, autoslim/NAME, package.module:factory "
        "nor ./net.py:factory"
    )


def torchvision_names() -> tuple[list[str], list[str]]:
    """Return the networks for images that torchvision lists: those that give classes, and those that give more."""
    import torchvision

    models = torchvision.models
    dense = [*models.list_models(module=models.segmentation), *models.list_models(module=models.detection)]
    return models.list_models(module=models), dense


def _torchvision(name: str) -> Factory:
    import torchvision

    plain, dense = torchvision_names()
    known = [*plain, *dense]
    if name not in known:
        raise UsageError(f"model.name: torchvision has no network for images {name!r}; {hint(name, known, 3)}")
    weights = {"weights": None, **({"weights_backbone": None} if name in dense else {})}

    return partial(torchvision.models.get_model_builder(name), **weights)


def timm_module(name: str) -> Any:
    """Return timm. Raises UsageError naming the network that needs it if it is not installed."""
    try:
        import timm
    except ImportError:
        raise UsageError(f"model.name: {name} needs timm; {install('timm')}") from None
    return timm


def _timm(name: str) -> Factory:
    timm = timm_module(f"timm/{name}")
    if not (re.fullmatch(r"[\w.-]+", name) and timm.is_model(name)):  # not hf-hub:... nor local-dir:...
        raise UsageError(f"model.name: timm has no network {name!r}; {hint(name, timm.list_models(), 3)}")
    return partial(timm.create_model, name, pretrained=False)


def _built_in(name: str) -> Factory:
    from autoslim_cli.models.built_in import FACTORIES

    if name not in FACTORIES:
        raise UsageError(f"model.name: no built-in network {name!r}; {hint(name, FACTORIES, 3)}")
    factory = FACTORIES[name]
    if "num_classes" in inspect.signature(factory).parameters:
        return factory
    return lambda num_classes=None, **arguments: factory(**arguments)  # of super-resolution: it knows no classes


_LISTED: dict[str, Callable[[str], Factory]] = {"torchvision/": _torchvision, "timm/": _timm, "autoslim/": _built_in}
"""What finds a factory in each of the lists, by the prefix of its names."""


def _without_loading(name: str, factory: Factory) -> Factory:
    """Return a listed factory that takes no argument which names a file, an address, or weights to fetch."""

    def checked(**arguments: Any) -> nn.Module:
        for key, value in arguments.items():
            if key.startswith(LOADING) or not _is_plain(value):
                raise UsageError(
                    f"model.args.{key}: a network of {name.partition('/')[0]}'s list is built without files and "
                    "downloads; leave it out, and name trained weights in model.weights"
                )
        return factory(**arguments)

    return checked


LOADING = ("weights", "pretrained", "checkpoint", "cache_dir")
"""How arguments of torchvision's and timm's factories begin that read files or fetch them."""


def _is_plain(value: object) -> bool:
    """Tell whether a value holds numbers and plain words alone: no path and no address."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return not isinstance(value, str) or re.fullmatch(r"[\w-]*", value) is not None


def _set_strides(network: nn.Module, strides: dict[str, int]) -> None:
    """Set strides by layer name; the nearest names help with a wrong one."""
    modules: dict[str, Any] = dict(network.named_modules())
    strided = [name for name, module in modules.items() if hasattr(module, "stride")]
    for name, stride in strides.items():
        module = modules.get(name)
        if module is None or not isinstance(getattr(module, "stride", None), (int, tuple)):
            raise UsageError(f"model.strides: no layer {name!r} with a stride; {hint(name, strided, 3)}")
        pair = isinstance(module.stride, tuple)
        module.stride = (stride,) * len(module.stride) if pair else stride
