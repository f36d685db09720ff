"""Run folders: what a training writes, and how every other command finds it again."""
