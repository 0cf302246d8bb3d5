"""Write autoslim_cli/data/digits.npz: the handwritten digits that the `digits` recipe trains on.

Source: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998
(CC BY 4.0), in the copy that scikit-learn ships: 1,797 images of 8x8 pixels, values 0..16, here scaled to 0..255.
Needs scikit-learn: pip install scikit-learn; python scripts/make_digits.py
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
images = np.minimum(digits.images * 16, 255).astype(np.uint8)
path = Path(__file__).parents[1] / "autoslim_cli" / "data" / "digits.npz"
np.savez_compressed(path, images=images, labels=digits.target.astype(np.uint8))
print(f"{path.name}: {len(images)} images, {path.stat().st_size} bytes")
