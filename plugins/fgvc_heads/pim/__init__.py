"""PIM, the plug-in module: Chou, Lin, Kao 2022, A Novel Plug-in Module for Fine-Grained Visual Classification.

The way of the data: feature maps -> `FeaturePyramid` -> one `Selector` a map -> `Combiner` -> scores; `pim_loss`
trains all of it. Throughout, a map is its points B,N,F (N = H*W points of F channels): point-wise layers are then
plain matrix products, and channels-last maps need no copy.
"""

from fgvc_heads.pim.head import PimHead
from fgvc_heads.pim.losses import PimOutput

__all__ = ["PimHead", "PimOutput"]
