"""`python -m fgvc_cli` is the same as `fgvc`."""

from fgvc_cli.cli.app import main

if __name__ == "__main__":
    main()
