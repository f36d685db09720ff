"""Augmentation of whole batches on the device, each image by its own draw.

A worker crops an image and *draws* what else is to happen to it: torchvision's own transforms run on a blank that notes
their operations (`recording`). The draws of a batch (`draws`) are cut into turns (`turns`): in each one kind of
operation is done to all images that wait for it, as one batched computation (`geometry`, `levels`, `color`,
`neighborhood`, `erasing`). `augmenting` puts this together; `mixing` is mixup and CutMix.

Nothing here reads a value off the device, and no shape depends on one.
"""
