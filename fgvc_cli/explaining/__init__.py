"""Explain predictions with saliency maps, and measure how faithful the maps are."""
