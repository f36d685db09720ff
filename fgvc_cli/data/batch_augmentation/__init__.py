"""Augmentation of whole batches on the device, with separate random parameters for each image.

A worker crops an image and draws the rest of its augmentation: torchvision's own transforms run on a placeholder that
records their operations (`recording`). The draws of a batch (`draws`) are split into op groups (`op_groups`), each of
which applies one kind of operation to many images in one batched computation (`geometry`, `pixel_ops`). `batch`
combines these, and implements mixup and CutMix.

Nothing here reads a value back from the device, and no shape depends on one.
"""
