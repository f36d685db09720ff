"""CMAL-Net, cross-layer mutual attention: Liu, Zhao, Wang, Kato 2023, Pattern Recognition 140, 109550.

The way of the data: three feature maps -> one `Expert` each -> its scores, and the scores of the three experts'
concatenation. What an expert looked at (`attention`) becomes a region of the image (`regions`), which the other
experts are trained on; prediction looks at the image and at the region that all three found. `parts` says which of
this each of the five objectives needs.
"""

from fgvc_heads.cmal.head import CmalHead
from fgvc_heads.cmal.objectives import Attention, CmalOutput

__all__ = ["Attention", "CmalHead", "CmalOutput"]
