"""Predict the classes of images: python predict_onnx.py IMAGE... (needs numpy, onnxruntime and pillow)."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"))
about = json.loads(session.get_modelmeta().custom_metadata_map["fgvc"])
steps = about["preprocessing"]
for name in sys.argv[1:]:
    file = Image.open(name)
    file.draft(None, (steps["resize"], steps["resize"]))  # decodes a large JPEG at 1/2, 1/4 or 1/8 of its size
    image = ImageOps.exif_transpose(file).convert("RGB")
    scale = [steps["resize"] / (min(image.size) if steps["crop_mode"] == "center" else side) for side in image.size]
    size = [max(steps["resize"], round(side * by)) for side, by in zip(image.size, scale, strict=True)]
    image = image.resize(size, Image.Resampling[steps["interpolation"].upper()])  # with antialiasing, as in training
    left, top = ((side - steps["image_size"]) // 2 for side in size)
    image = image.crop((left, top, left + steps["image_size"], top + steps["image_size"]))
    pixels = (np.asarray(image, np.float32) / 255 - np.float32(steps["mean"])) / np.float32(steps["std"])
    (scores,) = session.run(None, {"images": pixels.transpose(2, 0, 1)[None]})[0]
    calibration = about.get("calibration", {})
    scores = scores / (1 if calibration.get("tta") else calibration.get("temperature", 1))  # tta: for averages of views
    probabilities = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
    for k in probabilities.argsort()[::-1][:5]:
        print(f"{name}\t{about['classes'][k]}\t{probabilities[k]:.6f}")
