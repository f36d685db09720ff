"""When not to answer: what `fgvc calibrate` learns from held-out images, and how predictions use it."""
