"""Serve a classifier over HTTP: answers, their limits, the application and the server."""
