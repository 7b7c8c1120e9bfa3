"""`python -m briefbox` is the same as the command `briefbox`."""

from briefbox.cli import main

main()
