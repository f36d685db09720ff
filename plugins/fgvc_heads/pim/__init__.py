"""PIM, the plug-in module: Chou, Lin, Kao 2022, A Novel Plug-in Module for Fine-Grained Visual Classification.

Data flow: feature maps -> `FeaturePyramid` -> one `Selector` per map -> `Combiner` -> logits; `pim_loss` trains all
of it. Throughout, a map is its points B,N,F (N = H*W points of F channels): layers that act on each point alone are
then plain matrix products, and channels-last maps need no copy.
"""

from fgvc_heads.pim.head import PimHead
from fgvc_heads.pim.losses import PimOutput

__all__ = ["PimHead", "PimOutput"]
