"""CMAL-Net, cross-layer mutual attention: Liu, Zhao, Wang, Kato 2023, Pattern Recognition 140, 109550.

Data flow: three feature maps -> one `Expert` each -> its logits, and the logits of the three experts' concatenation
(`experts`). Attention of an expert becomes a region of the image (`regions`), which the other experts are trained on
(`objectives`); prediction uses the image and the region of all three experts together (`head`).
"""

from fgvc_heads.cmal.head import CmalHead
from fgvc_heads.cmal.objectives import CmalOutput
from fgvc_heads.cmal.regions import Attention

__all__ = ["Attention", "CmalHead", "CmalOutput"]
