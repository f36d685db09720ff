"""Run folders: what a training leaves behind, and how every other command finds it again."""
