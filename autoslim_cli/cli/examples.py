"""Hold the examples that `--help` and docs/commands.md show."""

EXAMPLES = {
    "": ("autoslim run --flops 50%", "autoslim search --help"),
    "recipes": ("autoslim recipes list", "autoslim recipes copy --help"),
    "train-base": ("autoslim train-base -r cifar10-small",),
    "train-supernet": (
        "autoslim train-supernet -r cifar10",
        "autoslim train-supernet -r cifar10 train.epochs=50 --resume",
    ),
    "calibrate-bn": (
        "autoslim calibrate-bn -r cifar10 --widths 0.25:1.0:0.25",
        "autoslim calibrate-bn --channels recipes/cifar10/arch-40M.json",
    ),
    "extract": ("autoslim extract -r mine --width 0.5",),
    "search": (
        "autoslim search -r cifar10 --flops 60M,40M",
        "autoslim search -r cifar10 --flops 50% --params 1.5M",
        "autoslim search -r cifar10 --latency 850us --resume",
    ),
    "retrain": (
        "autoslim retrain recipes/cifar10/arch-40M.json",
        "autoslim retrain arch-40M.json --from supernet retrain.epochs=20",
        "autoslim retrain -r cifar10 --uniform-flops 40M",
    ),
    "run": ("autoslim run --flops 50%", "autoslim run -r cifar10 --flops 60M,40M --from supernet"),
    "evaluate": ("autoslim evaluate recipes/cifar10/model-40M.safetensors",),
    "profile": ("autoslim profile -r cifar10 --threads 1", "autoslim profile -r cifar10 --engine onnxruntime --resume"),
    "export": (
        "autoslim export --onnx recipes/cifar10/model-40M.safetensors --fold-bn",
        "autoslim export --latency-suite suite -r cifar10",
    ),
    "units": ("autoslim units -r mine", "autoslim units -r mine 'space.pin=[\"stem.*\"]'"),
    "info": (
        "autoslim info recipes/cifar10/arch-40M.json",
        "autoslim info cifar10",
        "autoslim info torchvision/resnet18 --input 3x64x64 --classes 10",
    ),
    "compare": ("autoslim compare arch-60M.json arch-40M.json --markdown",),
    "report": ("autoslim report -r cifar10",),
    "recipes list": ("autoslim recipes list",),
    "recipes show": ("autoslim recipes show cifar10 train.epochs=50",),
    "recipes copy": ("autoslim recipes copy cifar10 recipes/mine",),
    "recipes validate": ("autoslim recipes validate recipes/mine",),
    "recipes schema": ("autoslim recipes schema > recipe.schema.json",),
}
"""A command's examples, by its name, and of all together by none: the tests parse every one."""


def epilog(command: str) -> str:
    """Return what `--help` of a command ends with; an empty line is what separates lines there."""
    return "\n\n".join(["Examples:", *EXAMPLES[command]])
