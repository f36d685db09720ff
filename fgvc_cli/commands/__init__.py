"""The subcommands, one module each: read the options, call the host, show the result."""
