"""Small partners that components are checked with: backbones, a head, optimizers, images and a data set."""
